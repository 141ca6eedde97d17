package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testVolumes: each kind that needs no API server, sub paths, and read-only ones.
func testVolumes(t *testing.T, n *node) {
	host := n.path("volumes/host")
	must(t, os.MkdirAll(host, 0o755))
	must(t, os.WriteFile(filepath.Join(host, "file"), []byte("from the node\n"), 0o644))
	n.add(t, "volumes", `
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
  - {name: host, hostPath: {path: `+host+`}}
  - name: about
    downwardAPI:
      items:
      - {path: name, fieldRef: {fieldPath: metadata.name}}
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}
  containers:
  - name: main
    image: busybox
    resources: {limits: {cpu: 250m}}
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    command:
    - sh
    - -c
    - |
      echo disk >/disk/sub/x; cat /part/x
      grep -c ' /memory tmpfs' /proc/mounts
      cat /host/file; touch /host/no 2>/dev/null || echo read-only
      cat /one-file
      cat /about/name; echo; cat /about/labels; echo; cat /about/cpu; echo
      echo $POD; echo end; exec sleep 1000
    volumeMounts:
    - {name: disk, mountPath: /disk/sub, subPath: a/b}
    - {name: disk, mountPath: /part, subPath: a/b}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host, readOnly: true}
    - {name: host, mountPath: /one-file, subPath: file}
    - {name: about, mountPath: /about}
`)
	n.untilReady(t, "volumes")
	got := n.untilLog(t, "volumes", "main", "end\n")
	name := "volumes-" + nodeName
	if want := "disk\n1\nfrom the node\nread-only\nfrom the node\n" + name + "\napp=\"volumes\"\n250\n" + name + "\nend\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// testNodeNamespaces: a pod on the node's network and PIDs.
func testNodeNamespaces(t *testing.T, n *node) {
	n.add(t, "onnode", `
  hostNetwork: true
  hostPID: true
  containers:
  - {name: main, image: busybox, command: [sh, -c, 'readlink /proc/self/ns/net; readlink /proc/self/ns/pid; echo end; exec sleep 1000']}
`)
	n.untilReady(t, "onnode")
	got := n.untilLog(t, "onnode", "main", "end\n")
	for _, kind := range []string{"net", "pid"} {
		own, err := os.Readlink("/proc/self/ns/" + kind)
		must(t, err)
		if !strings.Contains(got, own) {
			t.Errorf("it is not in the node's %s namespace, %s: %q", kind, own, got)
		}
	}
}

// testSharedPID: containers of a pod see each other's processes only when asked.
func testSharedPID(t *testing.T, n *node) {
	const spec = `
  shareProcessNamespace: %v
  containers:
  - {name: other, image: busybox, command: [sleep, '987']}
  - {name: main, image: busybox, command: [sh, -c, 'sleep 1; ps | grep -c "[s]leep 987"; echo end; exec sleep 1000']}
`
	n.add(t, "shared", fmt.Sprintf(spec, true))
	n.add(t, "alone", fmt.Sprintf(spec, false))
	n.wait(t, "one to see the other", func() error {
		got, err := n.log("shared", "main", "")
		if err == nil && got != "1\nend\n" {
			err = fmt.Errorf("it wrote %q", got)
		}
		return err
	})
	if got := n.untilLog(t, "alone", "main", "end\n"); got != "0\nend\n" {
		t.Errorf("alone: %q", got)
	}
}

// testUserNamespace: root inside is nobody on the node.
func testUserNamespace(t *testing.T, n *node) {
	n.add(t, "userns", `
  hostUsers: false
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'id -u; cat /proc/self/uid_map; touch /v/x; stat -c %u /v/x; echo end; exec sleep 1000']
    volumeMounts: [{name: v, mountPath: /v}]
`)
	if n.env.RuntimeName == "runc" { // Debian's does not map the ids of mounts
		n.until(t, "userns", "refused", func(p *pod) error {
			if w := p.container("main").State.Waiting; w == nil || w.Reason == "ContainerCreating" && p.Status.Phase == "Running" {
				return fmt.Errorf("it is %+v", p.Status)
			}
			return nil
		})
		return
	}
	n.untilReady(t, "userns")
	lines := strings.Split(n.untilLog(t, "userns", "main", "end\n"), "\n")
	if lines[0] != "0" || lines[2] != "0" {
		t.Errorf("it is not root inside: %q", lines)
	}
	if f := strings.Fields(lines[1]); len(f) != 3 || f[0] != "0" || f[1] == "0" || f[2] != "65536" {
		t.Errorf("its ids are mapped as %q", lines[1])
	}
}

// testGroups: with the policy Strict the image's groups are left out, and the
// status tells who a container runs as.
func testGroups(t *testing.T, n *node) {
	n.add(t, "groups", `
  securityContext: {runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000, supplementalGroups: [4000], supplementalGroupsPolicy: Strict}
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'id -u; id -g; id -G; touch /v/x; stat -c %g /v/x; echo end; exec sleep 1000']
    volumeMounts: [{name: v, mountPath: /v}]
`)
	p := n.untilReady(t, "groups")
	if got, want := n.untilLog(t, "groups", "main", "end\n"), "1000\n3000\n3000 2000 4000\n2000\nend\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	u := p.container("main").User.Linux
	if u.UID != 1000 || u.GID != 3000 || len(u.SupplementalGroups) != 3 {
		t.Errorf("the status tells %+v", u)
	}
}

// testSecurityContext: capabilities, a read-only root, no new privileges, seccomp.
func testSecurityContext(t *testing.T, n *node) {
	n.add(t, "secure", `
  securityContext: {seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'grep -E "CapEff|NoNewPrivs|Seccomp:" /proc/self/status; touch /x 2>/dev/null || echo read-only; echo end; exec sleep 1000']
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
`)
	n.untilReady(t, "secure")
	if got, want := n.untilLog(t, "secure", "main", "end\n"), "CapEff:\t0000000000000400\nNoNewPrivs:\t1\nSeccomp:\t2\nread-only\nend\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
