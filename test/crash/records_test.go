package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// damages are what can be wrong with a record.
func damages() []func(string) string {
	return []func(string) string{
		func(string) string { return "" },
		func(s string) string { return s[:len(s)/2] },
		func(s string) string { return strings.Repeat("\x00\xff", len(s)/2) },
		func(s string) string { return strings.Replace(s, `"version":1`, `"version":987`, 1) },
	}
}

// TestDamagedRecords: a record that can't be read is told in the status and left
// as it is, and so is what it is about: processes, network, writable layer. The
// others are not affected. Once the record is good again, so is everything.
//
// Each record is damaged in another way; with GANTRY_TEST_CRASH_POINTS=all each
// in every way, in several rounds.
func TestDamagedRecords(t *testing.T) {
	rounds := 1
	if os.Getenv("GANTRY_TEST_CRASH_POINTS") == "all" {
		rounds = len(damages())
	}
	one(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
		for round := range rounds {
			testDamagedRecords(t, env, round)
			env.RemoveAll()
			env.CheckLeaks()
		}
	})
}

func testDamagedRecords(t *testing.T, env *testenv.Env, round int) {
	damage := func(i int) func(string) string { return damages()[(i+round)%len(damages())] }
	env.Pull(testenv.Busybox)
	run := func(name string) (pod, ctr string) {
		config := env.PodConfig(name)
		pod = env.RunPod(config)
		return pod, env.Run(pod, env.ContainerConfig("main", "trap 'exit 9' TERM; while :; do sleep 0.05; done"), config)
	}
	well, wellCtr := run("well")
	lostPod, lost := run("lost")
	var victims []victim
	for _, file := range []string{"pod.json", "state.json", "containers/CTR/container.json", "containers/CTR/state.json"} {
		pod, ctr := run(strings.ReplaceAll(strings.ReplaceAll(file, "/", "-"), ".", "-"))
		victims = append(victims, victim{
			pod: pod, ctr: ctr, init: initOf(t, ctr), hidesPod: !strings.Contains(file, "CTR"),
			file: filepath.Join(env.RunRoot, "pods", pod, strings.ReplaceAll(file, "CTR", ctr)),
		})
	}
	removed := victim{pod: lostPod, ctr: lost, init: initOf(t, lost), file: filepath.Join(env.RunRoot, "pods", lostPod, "containers", lost, "container.json")}
	env.Kill9()
	removed.damage(t, damage(0))
	for i := range victims {
		victims[i].damage(t, damage(i))
	}
	env.StartDaemon()
	stop := watch(t, env, "damaged records", well, wellCtr)
	if got := env.Exec(wellCtr, "echo yes"); got != "yes\n" {
		t.Errorf("the pod that is well says %q", got)
	}
	told := problems(t, env)
	if got := env.Metric("gantry_damaged_records"); got != float64(len(victims)+1) {
		t.Errorf("the metrics tell of %v damaged records", got)
	}
	for _, v := range append(victims, removed) {
		v.check(t, env, told)
	}
	env.RemovePod(lostPod) // who asks for it gets it: all of the pod goes
	if left := processesIn(t, lost); len(left) > 0 {
		t.Errorf("processes of a removed pod: %v", left)
	}
	stop()
	env.StopPod(well)
	env.Kill9()
	for _, v := range victims {
		if err := os.WriteFile(v.file, []byte(v.good), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env.StartDaemon()
	wantCounts(t, env, len(victims)+1, len(victims)+1)
	if got := env.Metric("gantry_damaged_records"); got != 0 {
		t.Errorf("the metrics tell of %v damaged records, and all are well", got)
	}
	for _, v := range victims {
		if state := env.Status(v.ctr).State; state != runtimeapi.ContainerState_CONTAINER_RUNNING {
			t.Errorf("%s: the container is %s", v.file, state)
		}
		if got := env.Exec(v.ctr, "ip -4 addr show eth0 | grep -c inet"); got != "1\n" {
			t.Errorf("%s: the container has %q addresses", v.file, got)
		}
		env.Stop(v.ctr, exitGrace)
		wantCode(t, v.file, env.WaitExit(v.ctr), 9)
	}
}

// A victim is a container of which one record, or its pod's, is damaged.
type victim struct {
	pod, ctr string
	init     int
	file     string
	hidesPod bool // without the record the pod is not listed either
	good     string
	bad      string
}

func (v *victim) damage(t *testing.T, damage func(string) string) {
	t.Helper()
	body, err := os.ReadFile(v.file)
	if err != nil {
		t.Fatal(err)
	}
	v.good, v.bad = string(body), damage(string(body))
	if v.good == v.bad {
		t.Fatalf("%s is not damaged: %s", v.file, v.good)
	}
	if err := os.WriteFile(v.file, []byte(v.bad), 0o600); err != nil {
		t.Fatal(err)
	}
}

// check looks at what must have become of a victim: nothing.
func (v *victim) check(t *testing.T, env *testenv.Env, told string) {
	t.Helper()
	if !strings.Contains(told, v.file) && !strings.Contains(told, filepath.Dir(v.file)) {
		t.Errorf("%s is not among the problems: %s", v.file, told)
	}
	if now, err := os.ReadFile(v.file); err != nil || string(now) != v.bad {
		t.Errorf("%s was changed: %v", v.file, err)
	}
	if initOf(t, v.ctr) != v.init {
		t.Errorf("%s: the container's process is another", v.file)
	}
	pods, err := env.Runtime.ListPodSandbox(env.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{Id: v.pod}})
	if err != nil || len(pods.Items) == 0 != v.hidesPod {
		t.Errorf("%s: pods %v, %v", v.file, pods, err)
	}
	if _, err := os.Stat(filepath.Join(env.Root, "network", "attachments", v.pod+".json")); err != nil {
		t.Errorf("%s: the pod's network: %v", v.file, err)
	}
}

// TestDamagedStorage: records of images, layers and writable layers that can't
// be read are told, cost no container a file, and are mended by a pull.
func TestDamagedStorage(t *testing.T) {
	for _, file := range []string{"storage/overlay-images/images.json", "storage/overlay-layers/layers.json", "containers/CTR/rootfs.json"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			one(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
				testDamagedStorage(t, env, file)
			})
		})
	}
}

func testDamagedStorage(t *testing.T, env *testenv.Env, file string) {
	env.Pull(testenv.Busybox)
	config := env.PodConfig("well")
	pod := env.RunPod(config)
	ctr := env.Run(pod, env.ContainerConfig("main", "trap 'exit 9' TERM; while :; do sleep 0.05; done"), config)
	env.Exec(ctr, "echo kept > /file")
	for i, damage := range damages()[1:3] {
		env.Kill9()
		v := victim{file: filepath.Join(env.Root, strings.ReplaceAll(file, "CTR", ctr))}
		v.damage(t, damage)
		env.StartDaemon()
		if told := problems(t, env); !strings.Contains(told, filepath.Base(file)) && !strings.Contains(told, ctr) {
			t.Errorf("%s is not among the problems: %s", file, told)
		}
		if got := env.Metric("gantry_damaged_records"); got < 1 {
			t.Errorf("the metrics tell of %v damaged records", got)
		}
		// Its programs are files of the image's layers.
		if got := env.Exec(ctr, "cp /bin/busybox /copy && cat /file"); got != "kept\n" {
			t.Errorf("the container says %q", got)
		}
		env.Pull(testenv.Busybox)
		another := env.ContainerConfig(fmt.Sprintf("other-%d", i), "cat /bin/busybox > /copy; exit 7")
		wantCode(t, "a container made afterwards", env.WaitExit(env.Run(pod, another, config)), 7)
		env.Kill9()
		env.StartDaemon() // the next one must not take the layers for garbage either
		if got := env.Exec(ctr, "cp /bin/busybox /copy && cat /file"); got != "kept\n" {
			t.Errorf("after another start the container says %q", got)
		}
	}
	env.Stop(ctr, exitGrace)
	wantCode(t, file, env.WaitExit(ctr), 9)
	env.RemoveAll()
	env.CheckLeaks()
}
