//! `format-nix [--check] FILE...`: format Nix files as alejandra does; its crate comes without a command.

use alejandra::format::{in_fs, Status};

fn main() {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let check = files.first().is_some_and(|first| first == "--check");
    if check {
        files.remove(0);
    }
    let mut wrong = false;
    for file in files {
        match in_fs(file.clone(), !check) {
            Status::Changed(false) => {}
            Status::Changed(true) if check => {
                eprintln!("{file}: is not formatted");
                wrong = true;
            }
            Status::Changed(true) => eprintln!("{file}: formatted"),
            Status::Error(error) => {
                eprintln!("{file}: {error}");
                wrong = true;
            }
        }
    }
    std::process::exit(wrong as i32);
}
