package oci

import (
	"testing"

	"github.com/gantry-cri/gantry/internal/node"
)

// TestSwap: a limit of memory forbids swap, unless swap has a limit of its own.
func TestSwap(t *testing.T) {
	facts := node.Facts{CgroupV2: true, SwapAccounting: true, CgroupControllers: map[string]bool{"memory": true}}
	memory, err := memoryLimits(&resources{MemoryLimitInBytes: 5}, facts)
	if err != nil || memory.Swap == nil || *memory.Swap != 5 {
		t.Errorf("without a limit of swap: %+v, %v", memory, err)
	}
	memory, err = memoryLimits(&resources{MemoryLimitInBytes: 5, Unified: map[string]string{"memory.swap.max": "7"}}, facts)
	if err != nil || memory.Swap != nil {
		t.Errorf("with memory.swap.max: %+v, %v", memory, err)
	}
	facts.SwapAccounting = false
	both := &resources{MemoryLimitInBytes: 5, MemorySwapLimitInBytes: 6, Unified: map[string]string{"memory.swap.max": "7"}}
	if memory, err = memoryLimits(both, facts); err == nil {
		t.Errorf("a limit that the node can't set: %+v", memory)
	}
}
