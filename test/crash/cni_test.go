package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// faulty is a CNI plugin at the end of a chain, which does what the file "mode"
// beside it says when it is asked to DEL, and writes down what it was asked.
const faulty = `#!/bin/sh
here=$(dirname "$0")
if [ "$CNI_COMMAND" = VERSION ]; then
	echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'
	exit
fi
conf=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID" >>"$here/asked"
case "$CNI_COMMAND $(cat "$here/mode")" in
ADD*) printf '%s' "$conf" | jq -c .prevResult ;;
"DEL fail") echo '{"cniVersion":"1.0.0","code":100,"msg":"broken on purpose"}'; exit 1 ;;
"DEL hang") exec sleep 1000 ;;
esac
`

// pluginDir makes a directory with a plugin that can be made to fail.
func pluginDir(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	setMode(t, dir, "work")
	return dir
}

func setMode(t *testing.T, dir, mode string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "mode"), []byte(mode+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFaultyNetwork: whatever becomes of a plugin while pods run, they can be
// stopped and removed in bounded time. What it owes is journalled, told, asked
// for again by the same daemon and the next, and given when it works again.
func TestFaultyNetwork(t *testing.T) {
	for _, mode := range []string{"fail", "hang", "missing"} {
		t.Run(mode, func(t *testing.T) {
			dir := pluginDir(t, "faulty", faulty)
			one(t, testenv.Options{PluginDir: dir, NoNetwork: true, Config: `cni_timeout = "3s"`}, func(t *testing.T, env *testenv.Env) {
				testFaultyNetwork(t, env, mode, dir)
			})
		})
	}
}

func testFaultyNetwork(t *testing.T, env *testenv.Env, mode, dir string) {
	env.Pull(testenv.Busybox)
	conflist := env.Network()
	conflist["plugins"] = append(conflist["plugins"].([]any), map[string]any{"type": "faulty"})
	useNetwork(t, env, conflist, "")
	config, other := env.PodConfig("hit"), env.PodConfig("other")
	pod := env.RunPod(config)
	env.Run(pod, env.ContainerConfig("main", "sleep 1000"), config)
	second := env.RunPod(env.PodConfig("second"))
	bystander := env.Run(env.RunPod(other), env.ContainerConfig("main", "sleep 1000"), other)

	plugin := filepath.Join(dir, "faulty")
	setMode(t, dir, mode)
	if mode == "missing" {
		if err := os.Rename(plugin, plugin+".away"); err != nil {
			t.Fatal(err)
		}
	}
	stop := watch(t, env, "a plugin that is to "+mode, "", bystander)
	start := time.Now()
	env.StopPod(pod)
	if left := processesIn(t, pod); len(left) > 0 {
		t.Errorf("processes of the stopped pod: %v", left)
	}
	env.RemovePod(pod)
	took := time.Since(start)
	t.Logf("a pod whose plugin is to %s was stopped and removed in %s", mode, took.Round(time.Millisecond))
	if took > 30*time.Second { // two operations of 3 s each
		t.Error("that is not bounded by cni_timeout")
	}
	wantOwed(t, env, pod, true)
	stop()

	env.Kill9()
	env.StartDaemon()
	stop = watch(t, env, "a plugin that is to "+mode+", for the next daemon", "", bystander)
	env.StopPod(second)
	wantOwed(t, env, pod, true)
	wantOwed(t, env, second, true)
	stop()

	setMode(t, dir, "work")
	if mode == "missing" {
		if err := os.Rename(plugin+".away", plugin); err != nil {
			t.Fatal(err)
		}
	}
	wantOwed(t, env, pod, false)
	wantOwed(t, env, second, false)
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{pod, second} {
		adds, dels := strings.Count(string(asked), "ADD "+id), strings.Count(string(asked), "DEL "+id)
		if adds != 1 || dels < 1 || mode == "fail" && dels < 2 {
			t.Errorf("pod %s: %d times ADD, %d times DEL", id, adds, dels)
		}
	}
}

// useNetwork puts a network in place and waits until the daemon has taken it:
// its name is what Status tells no one, so a pod is run on it until its address
// begins as it should.
func useNetwork(t *testing.T, env *testenv.Env, conflist map[string]any, prefix string) {
	t.Helper()
	if err := env.WriteNetwork(conflist); err != nil {
		t.Fatal(err)
	}
	n := 0
	env.Eventually("the network to be in use", func() error {
		n++
		config := env.PodConfig(fmt.Sprintf("probe%d", n))
		resp, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		if err != nil {
			return err
		}
		ip := env.PodStatus(resp.PodSandboxId).Network.GetIp()
		env.RemovePod(resp.PodSandboxId)
		if !strings.HasPrefix(ip, prefix) {
			return fmt.Errorf("a pod gets %s", ip)
		}
		return nil
	})
}

// wantOwed waits until the network of a pod that is gone is, or is no more, in
// the journal and among the problems of the status.
func wantOwed(t *testing.T, env *testenv.Env, pod string, want bool) {
	t.Helper()
	journalled := func() bool {
		return slices.Contains(names(t, filepath.Join(env.Root, "network", "attachments")), pod+".json")
	}
	env.Eventually(fmt.Sprintf("the network of pod %s to be owed: %t", pod, want), func() error {
		told := strings.Contains(problems(t, env), pod)
		if told != want || journalled() != want {
			return fmt.Errorf("told %t, journalled %t", told, journalled())
		}
		return nil
	})
}

func problems(t *testing.T, env *testenv.Env) string {
	t.Helper()
	resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Info["problems"]
}

// TestChangedNetwork: pods of a network that is configured no more, or otherwise,
// keep what they have, and give it back as they got it.
func TestChangedNetwork(t *testing.T) {
	one(t, testenv.Options{}, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		config := env.PodConfig("old")
		old := env.RunPod(config)
		ctr := env.Run(old, env.ContainerConfig("main", "sleep 1000"), config)
		ip := env.PodStatus(old).Network.Ip
		older := env.RunPod(env.PodConfig("older"))

		stop := watch(t, env, "a network that goes away", old, ctr)
		if err := os.Remove(filepath.Join(env.CNIConfDir, "10-"+env.Name+".conflist")); err != nil {
			t.Fatal(err)
		}
		env.Eventually("a pod to be refused", func() error { return refusedForNetwork(env) })
		env.RemovePod(older)
		stop()
		env.Kill9()
		env.StartDaemon()
		useNetwork(t, env, otherNetwork(env), "10.99.")
		if got := env.Exec(ctr, "ip -4 addr show eth0"); !strings.Contains(got, ip+"/") {
			t.Errorf("the old pod's address %s is not in %s", ip, got)
		}
		if got := env.PodStatus(old).Network.Ip; got != ip {
			t.Errorf("the old pod's address is %s, was %s", got, ip)
		}
		env.RemovePod(old)
		for _, lease := range leases(t, env) {
			t.Errorf("a lease of the old network is left: %s", lease)
		}
	})
}

// refusedForNetwork returns nil once a pod is refused as Unavailable.
func refusedForNetwork(env *testenv.Env) error {
	ctx, cancel := context.WithTimeout(env.Context(), 20*time.Second)
	defer cancel()
	resp, err := env.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("late")})
	if status.Code(err) == codes.Unavailable {
		return nil
	}
	if err == nil {
		env.RemovePod(resp.PodSandboxId)
	}
	return fmt.Errorf("it is not: %v", err)
}

// otherNetwork has another name, other plugins and other addresses.
func otherNetwork(env *testenv.Env) map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0",
		"name":       env.Name + "-other",
		"plugins": []any{map[string]any{
			"type": "ptp",
			"ipam": map[string]any{
				"type":    "host-local",
				"dataDir": filepath.Join(env.Dir, "ipam"),
				"ranges":  []any{[]any{map[string]any{"subnet": "10.99.0.0/24"}}},
			},
		}},
	}
}

// leases lists the addresses that host-local has given for the first network.
func leases(t *testing.T, env *testenv.Env) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(env.Dir, "ipam", env.Name, "10.*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// collecting is a whole network: an address is a file beside it. It knows GC.
const collecting = `#!/bin/sh
here=$(dirname "$0")
conf=$(cat)
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}' ;;
ADD)
	touch "$here/lease-$CNI_CONTAINERID"
	echo '{"cniVersion":"1.1.0","ips":[{"address":"10.98.0.2/24"}]}' ;;
DEL) rm -f "$here/lease-$CNI_CONTAINERID" ;;
GC)
	valid=$(printf '%s' "$conf" | jq -r '."cni.dev/valid-attachments"[]?.containerID')
	for lease in "$here"/lease-*; do
		case $valid in *"${lease##*/lease-}"*) ;; *) rm -f "$lease" ;; esac
	done ;;
esac
`

// TestNetworkGarbage: what a network holds for pods that nobody knows is
// collected when a daemon starts; what it holds for pods that live is not.
func TestNetworkGarbage(t *testing.T) {
	dir := pluginDir(t, "collecting", collecting)
	one(t, testenv.Options{PluginDir: dir, NoNetwork: true}, func(t *testing.T, env *testenv.Env) {
		useNetwork(t, env, map[string]any{"cniVersion": "1.1.0", "name": env.Name, "plugins": []any{map[string]any{"type": "collecting"}}}, "10.98.")
		pod := env.RunPod(env.PodConfig("pod"))
		stray := filepath.Join(dir, "lease-"+strings.Repeat("0123456789abcdef", 4))
		if err := os.WriteFile(stray, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		env.Kill9()
		env.StartDaemon()
		env.Eventually("the stray to be collected", func() error {
			if _, err := os.Stat(stray); err == nil {
				return fmt.Errorf("%s is there", stray)
			}
			return nil
		})
		if _, err := os.Stat(filepath.Join(dir, "lease-"+pod)); err != nil {
			t.Errorf("the lease of a living pod: %v", err)
		}
	})
}
