// Command bench measures Gantry beside Debian's containerd in one run: the same
// OCI runtime, the same CNI plugins, equal networks, the same images from one
// local registry, both over the CRI's gRPC API only. Beside them it measures the
// floor: the bare runtime and the bare CNI plugins, which no server that uses
// them can be faster than.
//
//	go run ./test/bench [-quick|-full] [-runtime runc] [-json FILE]
//
// Everything runs in PID, mount and network namespaces of the benchmark's own,
// so that whatever happens (an error, Ctrl-C, SIGKILL) every process, mount and
// interface goes with it. Where the program is, in order: stage.go (namespaces
// and the end), run.go (what is measured when), measure_*.go, floor*.go, rows.go
// (the table's rows and the budgets).
package main
