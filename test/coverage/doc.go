// Package coverage keeps docs/cri-coverage.md true: every RPC and field of the
// CRI has a line there, and what a line names exists.
package coverage
