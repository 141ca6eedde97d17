// Package integration tests a real gantryd with real parts, each test with crun
// and with runc, each in an environment of its own that must be left clean.
package integration
