package oci

import (
	"slices"
	"strings"
)

// sysctlScope says which namespaces a pod has of its own.
type sysctlScope struct{ hostNetwork, hostIPC bool }

// ipcSysctls belong to the IPC namespace, as do all of fs.mqueue.
// See ipc_namespaces(7).
var ipcSysctls = []string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg_next_id",
	"kernel.sem", "kernel.sem_next_id",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.shm_next_id",
}

// utsSysctls belong to the UTS namespace. The hostname has a field of its own.
var utsSysctls = []string{"kernel.domainname"}

// checkSysctl returns the name of a sysctl in the form that every runtime
// knows (dots), or an error if writing it would reach beyond the pod.
func checkSysctl(given string, scope sysctlScope) (string, error) {
	name := normalizeSysctl(given)
	if name == "" || slices.Contains(strings.FieldsFunc(name, isSeparator), "..") ||
		strings.Contains(name, "..") || strings.ContainsAny(name, " \t\n\x00") {
		return "", invalid("sysctl %q is not a valid name", given)
	}
	first, _, _ := strings.Cut(strings.ReplaceAll(name, "/", "."), ".")
	dotted := strings.ReplaceAll(name, "/", ".")
	switch {
	case first == "net" && dotted != "net":
		if scope.hostNetwork {
			return "", invalid("sysctl %s would change the node: the pod uses the node's network", given)
		}
	case slices.Contains(ipcSysctls, dotted) || strings.HasPrefix(dotted, "fs.mqueue."):
		if scope.hostIPC {
			return "", invalid("sysctl %s would change the node: the pod uses the node's IPC namespace", given)
		}
	case slices.Contains(utsSysctls, dotted):
		if scope.hostNetwork { // the UTS namespace goes with the network
			return "", invalid("sysctl %s would change the node: the pod uses the node's UTS namespace", given)
		}
	default:
		return "", invalid("sysctl %s has no namespace: it would change the whole node", given)
	}
	return name, nil
}

func isSeparator(r rune) bool { return r == '.' || r == '/' }

// normalizeSysctl turns a name with slashes into one with dots, unless it
// also has dots, which then are part of a name (of a VLAN interface).
// See sysctl.d(5).
func normalizeSysctl(name string) string {
	first := strings.IndexFunc(name, isSeparator)
	if first < 0 || name[first] == '.' || strings.Contains(name, ".") {
		return name
	}
	return strings.ReplaceAll(name, "/", ".")
}
