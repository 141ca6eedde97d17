package config

import "time"

// A key is one line of the table: a setting of a C, which is a Config or a
// Runtime.
type key[C any] struct {
	name   string // in TOML; the flag is the same with dashes
	change change
	doc    string // the first sentence is the flag's help
	value  value[C]
}

// change is what it takes that a running daemon has a key's new value.
type change bool

const (
	live    change = true  // a reload; it holds for what is begun from then on
	restart change = false // a start of the daemon
)

// restartDoc ends the documentation of a key that a reload does not take over.
const restartDoc = "Needs a restart."

// keys is the table of every setting, in the order in which they are documented.
// Whatever is here is in the file, in the flags and in `gantryd config`.
func keys() []key[Config] {
	return []key[Config]{
		{"root", restart, "Directory of what survives a reboot: images, layers, writable layers, network attachments.",
			text(func(c *Config) *string { return &c.Root }, "/var/lib/gantry", absolute)},
		{"run_root", restart, "Directory of what a reboot ends: pods, their namespaces and sockets. A tmpfs is best.",
			text(func(c *Config) *string { return &c.RunRoot }, "/run/gantry", absolute)},
		{"listen", restart, "Unix socket on which the CRI is served.",
			text(func(c *Config) *string { return &c.Listen }, "/run/gantry/gantry.sock", socket)},

		{"metrics_listen", restart, "Address, host:port, on which metrics are served for Prometheus, without encryption and to everybody who can connect; empty is nowhere. The control socket has them too.",
			text(func(c *Config) *string { return &c.MetricsListen }, "", orEmpty(hostPort))},

		{"cni_conf_dir", live, "Directory of CNI network configurations. It is watched; the first usable *.conflist, *.conf or *.json by name is the network of new pods.",
			text(func(c *Config) *string { return &c.CNIConfDir }, "/etc/cni/net.d", absolute)},
		{"cni_bin_dir", live, "Directories that are searched for CNI plugins, in this order.",
			list(func(c *Config) *[]string { return &c.CNIBinDirs }, []string{"/opt/cni/bin", "/usr/lib/cni"}, notEmpty, each(absolute))},
		{"cni_timeout", live, "Bound on one CNI operation; then its plugins are killed.",
			duration(func(c *Config) *time.Duration { return &c.CNITimeout }, 2*time.Minute, positive)},

		{"registries_conf", live, "Registries configuration: mirrors, insecure registries, short names. Files in the directory of the same name with .d appended are read too. Only the default file may be missing.",
			text(func(c *Config) *string { return &c.RegistriesConf }, "/etc/containers/registries.conf", absolute)},
		{"policy", live, "Signature policy for images. Only the default file may be missing: then every image is accepted.",
			text(func(c *Config) *string { return &c.Policy }, "/etc/containers/policy.json", absolute)},
		{"policy_dir", live, "Directory with a NAMESPACE.json for each namespace whose pods have a signature policy of their own instead of policy. It need not exist; an empty value means none has.",
			text(func(c *Config) *string { return &c.PolicyDir }, "/etc/gantry/policies.d", orEmpty(absolute))},
		{"certs_dir", live, "Directory with a HOST:PORT directory for each registry that needs them: its CAs (*.crt), and the client's certificate (*.cert) and key (*.key).",
			text(func(c *Config) *string { return &c.CertsDir }, "/etc/containers/certs.d", absolute)},
		{"signatures_dir", live, "Directory of files (*.yaml, see containers-registries.d(5)) that say where the signatures of images are.",
			text(func(c *Config) *string { return &c.SignaturesDir }, "/etc/containers/registries.d", absolute)},
		{"decryption_keys_path", live, "Directory of private keys (PEM, JWK or DER) by which encrypted images are decrypted. It need not exist; an empty value means none.",
			text(func(c *Config) *string { return &c.DecryptionKeysPath }, "/etc/gantry/keys", orEmpty(absolute))},
		{"pinned_images", live, "Images that must not be collected: names, or patterns in which * stands for anything. The pause_image is one.",
			list(func(c *Config) *[]string { return &c.PinnedImages }, nil, each(imagePattern))},
		{"auth_file", live, "Registry credentials for pulls that bring none (an auth.json). It need not exist; an empty value means none.",
			text(func(c *Config) *string { return &c.AuthFile }, "/etc/gantry/auth.json", orEmpty(absolute))},
		{"pull_stall_timeout", live, "A download that receives nothing for so long has failed.",
			duration(func(c *Config) *time.Duration { return &c.PullStallTimeout }, time.Minute, positive)},
		{"max_parallel_downloads", live, "Layers of one image that are downloaded at the same time.",
			number(func(c *Config) *int { return &c.MaxParallelDownloads }, 6, between(1, 64))},
		{"max_image_bytes", live, "Most bytes, unpacked, that a pull may bring.",
			number(func(c *Config) *int64 { return &c.MaxImageBytes }, 256<<30, between(1<<20, 1<<50))},
		{"max_image_layers", live, "Most layers of an image. The kernel's overlay has no more than 500.",
			number(func(c *Config) *int { return &c.MaxImageLayers }, 500, between(1, 500))},
		{"max_layer_bytes", live, "Most bytes, unpacked, of one layer.",
			number(func(c *Config) *int64 { return &c.MaxLayerBytes }, 128<<30, between(1<<20, 1<<50))},
		{"max_layer_entries", live, "Most files, directories and other entries of one layer.",
			number(func(c *Config) *int64 { return &c.MaxLayerEntries }, 1_000_000, between(1000, 1<<32))},
		{"max_manifest_bytes", live, "Most bytes of a manifest, of an index, and of an image's configuration.",
			number(func(c *Config) *int64 { return &c.MaxManifestBytes }, 4<<20, between(64<<10, 4<<20))},

		{"default_runtime", live, "Name of the runtime of pods that ask for none. Empty means crun, or else runc, or else the only one in [runtimes].",
			text(func(c *Config) *string { return &c.DefaultRuntime }, "", orEmpty(handlerName))},
		{"runtime_timeout", live, "Bound on one call of an OCI runtime; then it is killed.",
			duration(func(c *Config) *time.Duration { return &c.RuntimeTimeout }, 2*time.Minute, positive)},

		{"cdi_spec_dirs", live, "Directories of CDI specifications (*.json, *.yaml), by which CDI devices are found. A device of a later directory wins over one of the same name in an earlier one; files may come and go at any time.",
			list(func(c *Config) *[]string { return &c.CDISpecDirs }, []string{"/etc/cdi", "/var/run/cdi"}, each(absolute))},
		{"hooks_dirs", live, "Directories of OCI hooks (*.json, see oci-hooks(5)), which are read for each container. A file of a later directory replaces one of the same name in an earlier one.",
			list(func(c *Config) *[]string { return &c.HooksDirs }, []string{"/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"}, each(absolute))},

		{"pause_image", live, "Image of the pause container. Empty means the built-in one, for which nothing is pulled.",
			text(func(c *Config) *string { return &c.PauseImage }, "")},
		{"pause_command", live, "Command of the pause image. Empty means what the image says. Only with a pause_image.",
			list(func(c *Config) *[]string { return &c.PauseCommand }, nil)},
		{"cgroup_manager", restart, "Who makes the cgroups of pods: cgroupfs (Gantry and the OCI runtime, directly) or systemd (as slices and scopes, over D-Bus). The kubelet asks for it, or is told by its cgroupDriver.",
			text(func(c *Config) *string { return &c.CgroupManager }, "cgroupfs", oneOf("cgroupfs", "systemd"))},
		{"cgroup_parent", restart, "Cgroup of pods whose request names none: each gets a child of it. With systemd /gantry stands for gantry.slice.",
			text(func(c *Config) *string { return &c.CgroupParent }, "/gantry", absolute)},
		{"seccomp_profile", live, "File with the default seccomp profile (an OCI linux.seccomp object as JSON). Empty means the built-in one.",
			text(func(c *Config) *string { return &c.SeccompProfile }, "", orEmpty(absolute))},
		{"apparmor_profile", restart, "AppArmor profile of containers that ask for the default one or for none, where the kernel has AppArmor. gantry-default is built in and loaded when it is needed; any other has to be loaded already.",
			text(func(c *Config) *string { return &c.AppArmorProfile }, "gantry-default", profileName)},
		{"pids_limit", live, "Most processes in one container. 0 means no limit.",
			number(func(c *Config) *int64 { return &c.PidsLimit }, 0, between(0, 1<<22))},
		{"log_size_max", live, "Most bytes in one container's log file; one that would grow beyond is replaced by an empty one, so that the newest output is kept. -1 means no limit.",
			number(func(c *Config) *int64 { return &c.LogSizeMax }, -1, unlimitedOr(8192))},
		{"journal_socket", live, "Socket of a journald, /run/systemd/journal/socket as a rule, that gets the containers' output besides their log files. Empty means none.",
			text(func(c *Config) *string { return &c.JournalSocket }, "", orEmpty(socket))},
		{"exec_output_max", live, "Most bytes that ExecSync returns of each of stdout and stderr; more is dropped, and the output ends in a line that says so.",
			number(func(c *Config) *int64 { return &c.ExecOutputMax }, 16<<20, between(1, 1<<30))},

		{"stream_address", restart, "Address on which exec, attach and port-forward are served to the kubelet. Whoever reaches it and has seen a URL can use it, so keep it on loopback or set stream_tls_cert.",
			text(func(c *Config) *string { return &c.StreamAddress }, "127.0.0.1", host)},
		{"stream_port", restart, "TCP port on which they are served. 0 takes a free one.",
			number(func(c *Config) *int { return &c.StreamPort }, 0, between(0, 65535))},
		{"stream_tls_cert", restart, "File with the certificate (PEM, with its chain) that they are served with. Empty means plain HTTP. The file is read again when it changes.",
			text(func(c *Config) *string { return &c.StreamTLSCert }, "", orEmpty(absolute))},
		{"stream_tls_key", restart, "File with the key of stream_tls_cert (PEM).",
			text(func(c *Config) *string { return &c.StreamTLSKey }, "", orEmpty(absolute))},
		{"stream_idle_timeout", live, "A session over which neither side has sent anything for so long is ended, and with it the command of an exec. Pings don't count.",
			duration(func(c *Config) *time.Duration { return &c.StreamIdleTimeout }, 4*time.Hour, positive)},

		{"stats_collection_period", restart, "How often metrics are taken, and open files, limits, the sizes of writable layers and containers in a sandbox are looked at, while somebody asks for them.",
			duration(func(c *Config) *time.Duration { return &c.StatsCollectionPeriod }, 10*time.Second, positive)},

		{"log_level", live, "Least level of the daemon's own log: debug, info, warn or error.",
			text(func(c *Config) *string { return &c.LogLevel }, "info", oneOf("debug", "info", "warn", "error"))},
		{"log_format", restart, "Format of the daemon's own log: text or json.",
			text(func(c *Config) *string { return &c.LogFormat }, "text", oneOf("text", "json"))},
		{"grpc_max_message_size", restart, "Most bytes in one CRI message, in either direction.",
			number(func(c *Config) *int { return &c.GRPCMaxMessageSize }, 16<<20, between(1<<20, 1<<30))},
		{"event_queue", live, "Container events that a subscriber may be behind; then it is dropped and has to list everything again.",
			number(func(c *Config) *int { return &c.EventQueue }, 2048, between(16, 1<<20))},
	}
}

// runtimeKeys is the table of a [runtimes.NAME] section.
func runtimeKeys() []key[Runtime] {
	return []key[Runtime]{
		{"path", live, "The runtime's binary. Without it, NAME is looked up in PATH.",
			text(func(r *Runtime) *string { return &r.Path }, "", orEmpty(absolute))},
		{"root", live, "Directory in which the runtime keeps its state. Without it, <run_root>/NAME.",
			text(func(r *Runtime) *string { return &r.Root }, "", orEmpty(absolute))},
		{"args", live, "Options of the binary, before each command and after --root: [\"--platform=systrap\"] for runsc.",
			list(func(r *Runtime) *[]string { return &r.Args }, nil, each(globalOption))},
		{"default_annotations", live, "Annotations that every OCI specification gets. Those of the request win where it may set them.",
			table(func(r *Runtime) *map[string]string { return &r.DefaultAnnotations })},
		{"allowed_annotations", live, "Prefixes of annotations by which whoever makes a pod may change how the runtime works (run.oci., dev.gvisor., io.katacontainers.). A pod's annotations of these prefixes are its containers' as well.",
			list(func(r *Runtime) *[]string { return &r.AllowedAnnotations }, nil, each(annotationPrefix))},
		{"privileged_without_host_devices", live, "Privileged containers get no device of the node but those that they ask for.",
			boolean(func(r *Runtime) *bool { return &r.PrivilegedWithoutHostDevices }, false)},
	}
}

const (
	runtimesTable = "runtimes"
	runtimesDoc   = "An OCI runtime, chosen by a pod's runtime handler NAME. Without any such table, crun and runc are offered where PATH has them."
)

func find[C any](table []key[C], name string) (key[C], bool) {
	for _, k := range table {
		if k.name == name {
			return k, true
		}
	}
	return key[C]{}, false
}
