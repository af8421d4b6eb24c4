module coopcloud.example/lab/runner

go 1.26.0

require github.com/drone-runners/drone-runner-exec v1.0.0-beta.10
