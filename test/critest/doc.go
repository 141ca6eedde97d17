// Package critest runs the Kubernetes project's own conformance tests for CRI
// daemons, critest v1.36, against a real gantryd: TestCritest, once for each
// runtime. skip.txt says what is left out and why.
package critest
