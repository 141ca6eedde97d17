package stats

func fileSystemFamilies() []family {
	device := []string{"device"}
	return []family{
		{"container_fs_usage_bytes", "Bytes that the container's writable layer occupies.", gauge, device,
			func(x *subject, b *builder) {
				if x.fs != nil && x.layered {
					b.sampledAt(x.layer.At)
					b.add(x.layer.Bytes, x.device(x.fs.device))
				}
			}, ofContainer},
		{"container_fs_limit_bytes", "Size of the writable layer's file system, in bytes.", gauge, device,
			ofFileSystem(func(fs *fileSystem) uint64 { return fs.bytes }), ofContainer},
		{"container_fs_inodes_total", "Inodes of the writable layer's file system.", gauge, device,
			ofFileSystem(func(fs *fileSystem) uint64 { return fs.inodes }), ofContainer},
		{"container_fs_inodes_free", "Free inodes of the writable layer's file system.", gauge, device,
			ofFileSystem(func(fs *fileSystem) uint64 { return fs.inodesFree }), ofContainer},
	}
}

// The kernel counts bytes and operations of each cgroup, no times, merges or
// operations in flight: for those there is nothing to tell.
func blockFamilies() []family {
	device := []string{"device"}
	return []family{
		{"container_fs_reads_bytes_total", "Bytes read from block devices.", counter, device,
			perDevice(func(d blockIO) uint64 { return d.readBytes }), ofContainer},
		{"container_fs_writes_bytes_total", "Bytes written to block devices.", counter, device,
			perDevice(func(d blockIO) uint64 { return d.writeBytes }), ofContainer},
		{"container_fs_reads_total", "Reads from block devices.", counter, device,
			perDevice(func(d blockIO) uint64 { return d.reads }), ofContainer},
		{"container_fs_writes_total", "Writes to block devices.", counter, device,
			perDevice(func(d blockIO) uint64 { return d.writes }), ofContainer},
		{"container_fs_sector_reads_total", "Sectors of 512 bytes read from block devices.", counter, device,
			perDevice(func(d blockIO) uint64 { return d.readBytes / 512 }), ofContainer},
		{"container_fs_sector_writes_total", "Sectors of 512 bytes written to block devices.", counter, device,
			perDevice(func(d blockIO) uint64 { return d.writeBytes / 512 }), ofContainer},
		{"container_blkio_device_usage_total", "Bytes read from and written to each block device.", counter,
			[]string{"device", "major", "minor", "operation"}, blkioUsage, ofContainer},
	}
}

func networkFamilies() []family {
	labels := []string{"interface"}
	return []family{
		{"container_network_receive_bytes_total", "Bytes received.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.rxBytes }), ofPod},
		{"container_network_receive_packets_total", "Packets received.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.rxPackets }), ofPod},
		{"container_network_receive_packets_dropped_total", "Packets dropped while receiving.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.rxDropped }), ofPod},
		{"container_network_receive_errors_total", "Errors while receiving.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.rxErrors }), ofPod},
		{"container_network_transmit_bytes_total", "Bytes sent.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.txBytes }), ofPod},
		{"container_network_transmit_packets_total", "Packets sent.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.txPackets }), ofPod},
		{"container_network_transmit_packets_dropped_total", "Packets dropped while sending.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.txDropped }), ofPod},
		{"container_network_transmit_errors_total", "Errors while sending.", counter, labels,
			perInterface(func(n *netInterface) uint64 { return n.txErrors }), ofPod},
	}
}
