// Package testenv runs a real gantryd for a test: with roots, a socket, a
// bridge, a subnet and a cgroup of its own, a real OCI runtime, the real CNI
// plugins and a real registry. Nothing here is a stand-in, and nothing is
// skipped: where a part is missing, the test fails and names it (test/setup
// installs them).
//
// An Env ends by checking that the test left nothing behind: no process, mount,
// network interface, address, firewall rule, cgroup or file.
package testenv
