package kubelet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// testProbes: of each kind, and readiness that comes and goes.
func testProbes(t *testing.T, n *node) {
	n.add(t, "probes", `
  containers:
  - name: http
    image: nginx
    startupProbe: {httpGet: {port: 80, path: /}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 1, failureThreshold: 30}
  - name: exec
    image: busybox
    command: [sh, -c, 'sleep 1; touch /ready; exec sleep 1000']
    startupProbe: {exec: {command: [test, -e, /ready]}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {exec: {command: [test, -e, /ready]}, periodSeconds: 1, timeoutSeconds: 20}
    livenessProbe: {exec: {command: ['true']}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 30}
`)
	n.untilReady(t, "probes")
	n.exec(t, "probes", "exec", "rm /ready")
	n.until(t, "probes", "not ready", func(p *pod) error {
		if p.container("exec").Ready || !p.container("http").Ready {
			return fmt.Errorf("readiness is as before")
		}
		return nil
	})
	n.exec(t, "probes", "exec", "touch /ready")
	p := n.untilReady(t, "probes")
	for _, name := range []string{"http", "exec"} {
		if c := p.container(name); c.RestartCount != 0 {
			t.Errorf("%s was restarted %d times", name, c.RestartCount)
		}
	}
}

// testLiveness: who fails the probe, or lets it hang, is restarted; so is who
// never starts.
func testLiveness(t *testing.T, n *node) {
	n.add(t, "unhealthy", `
  terminationGracePeriodSeconds: 1
  containers:
  - name: failing
    image: busybox
    command: [sleep, '1000']
    livenessProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 2, timeoutSeconds: 20}
  - name: hanging
    image: busybox
    command: [sleep, '1000']
    livenessProbe: {exec: {command: [sleep, '500']}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 1}
  - name: deaf
    image: busybox
    command: [sleep, '1000']
    startupProbe: {tcpSocket: {port: 81}, periodSeconds: 1, failureThreshold: 2}
`)
	for _, name := range []string{"failing", "hanging", "deaf"} {
		p := n.until(t, "unhealthy", "restarted", restarted(name, "Error"))
		if code := p.container(name).LastState.Terminated.ExitCode; code != 137 {
			t.Errorf("%s ended with %d", name, code)
		}
	}
}

// testContainerKilledOutside: a container that somebody kills is started again.
func testContainerKilledOutside(t *testing.T, n *node) {
	n.add(t, "killed", `
  containers: [{name: main, image: busybox, command: [sh, -c, 'trap "exit 9" TERM; echo up; while true; do sleep 0.1; done']}]
`)
	n.untilReady(t, "killed")
	n.untilLog(t, "killed", "main", "up")
	n.exec(t, "killed", "main", "kill 1")
	p := n.until(t, "killed", "restarted", restarted("main", "Error"))
	if code := p.container("main").LastState.Terminated.ExitCode; code != 9 {
		t.Errorf("it ended with %d", code)
	}
	n.untilReady(t, "killed")
}

// testRestarts: neither a new kubelet nor a killed daemon restarts a container,
// and what happens meanwhile is known afterwards.
func testRestarts(t *testing.T, n *node) {
	n.add(t, "steady", `
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'i=0; while true; do i=$((i+1)); echo $i; sleep 0.2; done']
    livenessProbe: {exec: {command: ['true']}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}
`)
	n.add(t, "ending", `
  restartPolicy: Never
  containers: [{name: main, image: busybox, command: [sh, -c, 'until test -e /end; do sleep 0.1; done; exit 42']}]
`)
	before := n.untilReady(t, "steady").container("main")
	n.untilReady(t, "ending")
	n.exec(t, "ending", "main", "(sleep 1; touch /end) >/dev/null 2>&1 &")
	n.env.Kill9()
	time.Sleep(3 * time.Second) // the container ends while no daemon runs
	n.env.StartDaemon()
	if s := n.untilPhase(t, "ending", "Failed").container("main").State.Terminated; s == nil || s.ExitCode != 42 {
		t.Errorf("what ended meanwhile: %+v", s)
	}
	n.stop()
	n.run()
	same := func(p *pod) error {
		now := p.container("main")
		if now.ContainerID != before.ContainerID || now.RestartCount != before.RestartCount || !now.Ready {
			return fmt.Errorf("the container was %s", before.ContainerID)
		}
		return nil
	}
	n.until(t, "steady", "as before", same)
	n.exec(t, "steady", "main", "echo")
	got, err := n.log("steady", "main", "")
	must(t, err)
	for i, line := range strings.Split(strings.TrimSpace(got), "\n") {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
	n.until(t, "steady", "as before", same)
}
