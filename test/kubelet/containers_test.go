package kubelet

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testInitContainers: one after the other, each to its end, before the others.
func testInitContainers(t *testing.T, n *node) {
	n.add(t, "init", `
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, 'sleep 1; echo first >>/v/order'], volumeMounts: [{name: v, mountPath: /v}]}
  - {name: second, image: busybox, command: [sh, -c, 'echo second >>/v/order'], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
  - {name: main, image: busybox, command: [sh, -c, 'echo main >>/v/order; cat /v/order; exec sleep 1000'], volumeMounts: [{name: v, mountPath: /v}]}
`)
	p := n.untilReady(t, "init")
	for _, name := range []string{"first", "second"} {
		if s := p.container(name).State.Terminated; s == nil || s.ExitCode != 0 || s.Reason != "Completed" {
			t.Errorf("%s: %+v", name, s)
		}
	}
	n.untilLog(t, "init", "main", "first\nsecond\nmain\n")
}

// testSidecar: a restartable init container runs before and beside the others,
// is restarted when it ends, and ends after them.
func testSidecar(t *testing.T, n *node) {
	n.add(t, "sidecar", `
  terminationGracePeriodSeconds: 20
  volumes: [{name: v, hostPath: {path: `+n.path("volumes/sidecar")+`, type: DirectoryOrCreate}}]
  initContainers:
  - name: sidecar
    image: busybox
    restartPolicy: Always
    command: [sh, -c, 'trap "echo sidecar >>/v/order; exit 0" TERM; echo started; test -e /v/once || { touch /v/once; exit 3; }; while true; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
    startupProbe: {exec: {command: [test, -e, /v/once]}, periodSeconds: 1}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'trap "sleep 1; echo main >>/v/order; exit 0" TERM; while true; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
`)
	n.untilReady(t, "sidecar")
	p := n.until(t, "sidecar", "with a sidecar that was restarted", restarted("sidecar", "Error"))
	if code := p.container("sidecar").LastState.Terminated.ExitCode; code != 3 {
		t.Errorf("the sidecar ended with %d", code)
	}
	n.untilReady(t, "sidecar")
	n.remove(t, "sidecar")
	wantFile(t, n.path("volumes/sidecar/order"), "main\nsidecar\n")
}

// testContainers: those of a pod share its network and its name.
func testContainers(t *testing.T, n *node) {
	n.add(t, "two", `
  containers:
  - {name: web, image: nginx}
  - {name: client, image: busybox, command: [sh, -c, 'until wget -qO- http://127.0.0.1/ | grep -i welcome; do sleep 0.2; done; hostname; exec sleep 1000']}
`)
	p := n.untilReady(t, "two")
	if c := p.container("client"); c.Image != "busybox" || !strings.Contains(c.ImageID, "busybox@sha256:") {
		t.Errorf("the pod's status tells the image %q, id %q", c.Image, c.ImageID)
	}
	n.untilLog(t, "two", "client", "two-"+nodeName)
}

func testHostPort(t *testing.T, n *node) {
	port := freePort(t)
	n.add(t, "port", fmt.Sprintf(`
  containers:
  - {name: web, image: nginx, ports: [{containerPort: 80, hostPort: %d}]}
`, port))
	n.untilReady(t, "port")
	n.wait(t, "the host port to answer", func() error {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
}

// testJob: a pod that is not restarted ends with what its container did.
func testJob(t *testing.T, n *node) {
	n.add(t, "good", `
  restartPolicy: Never
  containers: [{name: main, image: busybox, command: [sh, -c, 'echo done']}]
`)
	n.add(t, "bad", `
  restartPolicy: Never
  containers: [{name: main, image: busybox, terminationMessagePolicy: FallbackToLogsOnError, command: [sh, -c, 'printf why; exit 7']}]
`)
	n.untilPhase(t, "good", "Succeeded")
	p := n.untilPhase(t, "bad", "Failed")
	if s := p.container("main").State.Terminated; s == nil || s.ExitCode != 7 || s.Reason != "Error" || s.Message != "why" {
		t.Errorf("it ended with %+v", s)
	}
	n.untilLog(t, "good", "main", "done\n")
}

// testCrashLoop: what ends is started again, after a pause that is told.
func testCrashLoop(t *testing.T, n *node) {
	n.add(t, "crash", `
  containers: [{name: main, image: busybox, command: [sh, -c, 'echo again; exit 5']}]
`)
	n.until(t, "crash", "restarted twice", func(p *pod) error {
		if c := p.container("main"); c.RestartCount < 2 || c.LastState.Terminated == nil || c.LastState.Terminated.ExitCode != 5 {
			return fmt.Errorf("restarted %d times, last %+v", c.RestartCount, c.LastState.Terminated)
		}
		return nil
	})
	n.until(t, "crash", "backing off", func(p *pod) error {
		if w := p.container("main").State.Waiting; w == nil || w.Reason != "CrashLoopBackOff" {
			return fmt.Errorf("it is %+v", p.container("main").State)
		}
		return nil
	})
	n.wait(t, "the log of the last run", func() error {
		got, err := n.log("crash", "main", "previous=true")
		if err == nil && got != "again\n" {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// testLimits: what the pod asks for is in its cgroups.
func testLimits(t *testing.T, n *node) {
	n.add(t, "limits", `
  containers:
  - name: main
    image: busybox
    command: [sleep, '1000']
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}
`)
	p := n.untilReady(t, "limits")
	id := p.container("main").ContainerID
	for _, limit := range []struct{ controller, v1, v2, want string }{
		{"memory", "memory.limit_in_bytes", "memory.max", "67108864"},
		{"cpu", "cpu.cfs_quota_us", "cpu.max", "50000"},
		{"cpu", "cpu.shares", "cpu.weight", "102"},
	} {
		got := cgroupFile(t, n, p, id, limit.controller, limit.v1, limit.v2)
		want := limit.want
		switch {
		case !onCgroupV1() && limit.v2 == "cpu.max":
			want = "50000 100000"
		case !onCgroupV1() && limit.v2 == "cpu.weight":
			if got == "" || got == "100" {
				t.Errorf("cpu.weight is %q", got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", limit.v1, got, want)
		}
	}
}

// testQoS: a pod is in the cgroup of its class, with the limits of its containers
// together.
func testQoS(t *testing.T, n *node) {
	for _, class := range []struct{ name, resources, memory string }{
		{"guaranteed", "{limits: {cpu: 200m, memory: 48Mi}}", "50331648"},
		{"burstable", "{requests: {cpu: 100m}, limits: {memory: 32Mi}}", "33554432"},
		{"besteffort", "{}", "max"},
	} {
		n.add(t, "qos-"+class.name, `
  containers:
  - {name: main, image: busybox, command: [sleep, '1000'], resources: `+class.resources+`}
`)
		p := n.untilReady(t, "qos-"+class.name)
		dirs := n.cgroupsOf(p.Metadata.UID)
		if len(dirs) == 0 {
			t.Errorf("%s: the pod has no cgroup", class.name)
		}
		for _, dir := range dirs {
			for _, other := range []string{"burstable", "besteffort"} {
				if got, want := strings.Contains(dir, other), other == class.name; got != want {
					t.Errorf("a pod that is %s is in %s", class.name, dir)
				}
			}
			if limit, err := os.ReadFile(filepath.Join(dir, "memory.max")); err == nil && strings.TrimSpace(string(limit)) != class.memory {
				t.Errorf("%s: the pod's memory.max is %s, not %s", class.name, strings.TrimSpace(string(limit)), class.memory)
			}
		}
	}
}

func testOOM(t *testing.T, n *node) {
	n.add(t, "oom", `
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'sleep 1; exec tail /dev/zero']
    resources: {limits: {memory: 16Mi}}
`)
	p := n.until(t, "oom", "restarted", restarted("main", "OOMKilled"))
	if code := p.container("main").LastState.Terminated.ExitCode; code != 137 {
		t.Errorf("it ended with %d", code)
	}
	n.until(t, "oom", "held back", func(p *pod) error {
		c := p.container("main")
		if c.RestartCount < 2 || c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" || c.LastState.Terminated.Reason != "OOMKilled" {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
}

// testPreStop: the hook runs to its end, then the stop signal comes, then the
// grace period passes.
func testPreStop(t *testing.T, n *node) {
	n.add(t, "hook", `
  terminationGracePeriodSeconds: 4
  volumes: [{name: v, hostPath: {path: `+n.path("volumes/hook")+`, type: DirectoryOrCreate}}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'trap "echo signal >>/v/order" TERM; while true; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /v}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo started >>/v/order']}}
      preStop: {exec: {command: [sh, -c, 'sleep 1; echo hook >>/v/order']}}
`)
	n.untilReady(t, "hook")
	begin := time.Now()
	n.remove(t, "hook")
	if took := time.Since(begin); took < 4*time.Second {
		t.Errorf("it was killed after %s, and had 4 s", took)
	}
	wantFile(t, n.path("volumes/hook/order"), "started\nhook\nsignal\n")
}

// testMissingImage: the kubelet tells why, and goes on when the image appears.
func testMissingImage(t *testing.T, n *node) {
	n.add(t, "missing", `
  containers: [{name: main, image: 'busybox:no-such-tag', command: [sleep, '1000']}]
`)
	n.until(t, "missing", "waiting for its image", func(p *pod) error {
		w := p.container("main").State.Waiting
		if w == nil || w.Reason != "ErrImagePull" && w.Reason != "ImagePullBackOff" || !strings.Contains(w.Message, "no-such-tag") {
			return fmt.Errorf("it waits for %+v", w)
		}
		return nil
	})
}

// testRemoval: nothing of a pod stays.
func testRemoval(t *testing.T, n *node) {
	n.add(t, "gone", `
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: busybox, command: [sleep, '1000']}]
`)
	uid := n.untilReady(t, "gone").Metadata.UID
	n.remove(t, "gone")
	n.wait(t, "the pod's cgroups and directories to go", func() error {
		if left := n.cgroupsOf(uid); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return n.noSandbox("gone-"+nodeName, false)
	})
}
