//go:build tools

// Package tools pins what the tests run but Gantry does not link: crictl,
// critest, ginkgo and staticcheck. It is a module of its own so that none of
// their requirements reach the daemon's go.mod.
package tools

import (
	_ "github.com/onsi/ginkgo/v2"
	_ "github.com/onsi/gomega"
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
