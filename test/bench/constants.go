package main

// What every container gets, of the servers' and of the floor's.
const (
	containerShares   = 102
	containerPeriod   = 100_000
	containerQuota    = 50_000
	containerMemory   = 64 << 20
	containerOOMScore = 1000
)

// maskedPaths and readonlyPaths are what the kubelet asks for by default.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
