package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/test/testenv"
)

// reload replaces a file of conf.d, has the daemon reload, and returns what it
// says of that.
func reload(t *testing.T, env *testenv.Env, toml string) control.Configuration {
	t.Helper()
	writeConfD(t, env, toml)
	return hangUp(t, env)
}

func hangUp(t *testing.T, env *testenv.Env) (now control.Configuration) {
	t.Helper()
	before := daemonStatus(t, env).Config
	if err := unix.Kill(env.DaemonPID(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	env.Eventually("the reload", func() error {
		now = daemonStatus(t, env).Config
		switch {
		case now.Read.After(before.Read):
			return nil
		case now.Failed != nil && (before.Failed == nil || now.Failed.At.After(before.Failed.At)):
			return nil
		}
		return fmt.Errorf("it is %+v", now)
	})
	return now
}

func daemonStatus(t *testing.T, env *testenv.Env) (s control.Status) {
	t.Helper()
	text := mustGantryd(t, env, "status", "-o", "json")
	_, object, _ := strings.Cut(text, "{") // a spoiled configuration is told before
	if err := json.Unmarshal([]byte("{"+object), &s); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return s
}

func handlerNames(t *testing.T, env *testenv.Env) string {
	t.Helper()
	resp, err := env.Runtime.Status(env.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range resp.RuntimeHandlers {
		names = append(names, h.Name)
	}
	return strings.Join(names, " ")
}

// logged is what the daemon logs while something is done.
func logged(t *testing.T, env *testenv.Env, do func()) string {
	t.Helper()
	file := filepath.Join(env.Dir, "daemon.log")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	do()
	after, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(after[len(before):])
}

func refuseHandler(t *testing.T, env *testenv.Env, handler string) {
	t.Helper()
	_, err := env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: env.PodConfig("refused"), RuntimeHandler: handler})
	wantCode(t, "handler "+handler, err, codes.InvalidArgument)
}

// TestReload: without a restart the log's level changes, limits change, and a
// handler comes, with which pods can be made; a call under way is not disturbed,
// and a key that needs a restart is named.
func TestReload(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		podConfig := env.PodConfig("old")
		old := env.Run(env.RunPod(podConfig), env.ContainerConfig("main", "sleep 1000"), podConfig)
		daemon := env.DaemonPID()
		under := make(chan error, 1)
		go func() {
			resp, err := env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{
				ContainerId: old, Cmd: []string{"sh", "-c", "until test -e /go; do sleep 0.1; done; echo whole output"}, Timeout: 50})
			if string(resp.GetStdout()) != "whole output\n" {
				err = errors.Join(err, fmt.Errorf("stdout %q", resp.GetStdout()))
			}
			under <- err
		}()

		toml := fmt.Sprintf("log_level = \"info\"\npinned_images = [\"*/busybox*\"]\nexec_output_max = 3\npids_limit = 77\nstats_collection_period = \"3s\"\n[runtimes.later]\npath = %q\n", testenv.Program(t, env.RuntimeName))
		said := logged(t, env, func() {
			now := reload(t, env, toml)
			if now.Failed != nil || strings.Join(now.NeedRestart, " ") != "stats_collection_period" {
				t.Errorf("after the reload: %+v", now)
			}
		})
		wantContains(t, "the log", said, "configuration reloaded")
		for _, key := range []string{"exec_output_max", "pids_limit", "log_level", "runtimes.later"} {
			wantContains(t, "what changed", said, key)
		}
		wantContains(t, "the log", said, "keys=[stats_collection_period]")
		wantContains(t, "gantryd status", mustGantryd(t, env, "status"), "; a restart is needed for stats_collection_period\n")
		wantContains(t, "handlers", handlerNames(t, env), "later")
		wantContains(t, "verbose runtimes", verboseStatus(t, env, "runtimes"), `"later":`)
		config := verboseStatus(t, env, "config")
		wantContains(t, "the configuration in force", config, `"PidsLimit":77`)
		wantContains(t, "the configuration in force", config, `"StatsCollectionPeriod":10000000000`)

		if said := logged(t, env, func() { env.Exec(old, "echo a") }); strings.Contains(said, "DEBUG") {
			t.Errorf("at level info it logs %s", said)
		}
		wantEqual(t, "pinned", imageStatus(t, env, testenv.Busybox).GetPinned(), true)
		wantContains(t, "output beyond the limit", env.Exec(old, "echo 12345"), "123")
		later := env.PodConfig("later")
		ctr := env.Run(runWith(t, env, later, "later"), env.ContainerConfig("main", "sleep 1000"), later)
		wantContains(t, "pids limit of a new container", cgroupFile(t, initPID(t, ctr), "pids", "pids.max", "pids.max"), "77")
		if got := cgroupFile(t, initPID(t, old), "pids", "pids.max", "pids.max"); strings.Contains(got, "77") {
			t.Errorf("pids limit of the container of before: %s", got)
		}
		touchIn(t, env, old)
		if err := <-under; err != nil {
			t.Errorf("the exec that was under way: %v", err)
		}

		if now := reload(t, env, strings.Replace(toml, "stats_collection_period = \"3s\"", "log_level = \"debug\"", 1)[len("log_level = \"info\"\n"):]); len(now.NeedRestart) > 0 {
			t.Errorf("a restart is needed for %v", now.NeedRestart)
		}
		if said := logged(t, env, func() { env.Exec(old, "echo a") }); !strings.Contains(said, "DEBUG") {
			t.Errorf("at level debug it logs %s", said)
		}
		wantEqual(t, "the daemon's process", env.DaemonPID(), daemon)
	})
}

func touchIn(t *testing.T, env *testenv.Env, ctr string) {
	t.Helper()
	if _, err := env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"touch", "/go"}, Timeout: 20}); err != nil {
		t.Fatal(err)
	}
}

// TestReloadOfABadFile: a fault changes nothing, and is told until it is mended.
func TestReloadOfABadFile(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		handler := fmt.Sprintf("[runtimes.kept]\npath = %q\n", testenv.Program(t, env.RuntimeName))
		good := reload(t, env, "exec_output_max = 5000\n"+handler)
		for name, tc := range map[string]struct{ toml, says string }{
			"syntax":  {"exec_output_max = = 1\n", "conf.d/10.toml:1"},
			"key":     {"exec_output_max = 1\nlog_lvl = \"info\"\n", "is log_level meant?"},
			"value":   {"exec_output_max = 1\ncni_timeout = \"0s\"\n", "cni_timeout"},
			"pair":    {"exec_output_max = 1\npause_command = [\"/x\"]\n", "needs a pause_image"},
			"pattern": {"exec_output_max = 1\npinned_images = [\"UPPER/case\"]\n", "pinned"},
		} {
			began := time.Now()
			now := reload(t, env, tc.toml)
			if now.Failed == nil || !strings.Contains(now.Failed.Error, tc.says) || now.Failed.At.Before(began) || !now.Read.Equal(good.Read) {
				t.Fatalf("%s: %+v, and before %+v", name, now, good)
			}
			wantContains(t, name+": status", mustGantryd(t, env, "status"), "configuration not reloaded at 20")
			wantContains(t, name+": problems", verboseStatus(t, env, "problems"), "configuration not reloaded")
			wantContains(t, name+": in force", verboseStatus(t, env, "config"), `"ExecOutputMax":5000`)
		}
		wantContains(t, "handlers", handlerNames(t, env), "kept")
		runWith(t, env, env.PodConfig("pod"), "kept")
		if now := reload(t, env, handler); now.Failed != nil {
			t.Errorf("mended: %+v", now.Failed)
		}
		if problems := daemonStatus(t, env).Problems; len(problems) > 0 {
			t.Errorf("mended: %q", problems)
		}
	})
}

// TestReloadRemovesHandlers: pods of a handler that is gone, or is another one
// now, go on with what they were made with and can be ended.
func TestReloadRemovesHandlers(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		bin, root := filepath.Join(env.Dir, "gone-runtime"), filepath.Join(env.RunRoot, "gone-root")
		copyFile(t, testenv.Program(t, env.RuntimeName), bin)
		reload(t, env, fmt.Sprintf("[runtimes.gone]\npath = %q\nroot = %q\n[runtimes.other]\npath = %q\nroot = %q\n", bin, root, bin, root))
		var pods, containers []string
		for _, handler := range []string{"gone", "other"} {
			config := env.PodConfig(handler)
			pods = append(pods, runWith(t, env, config, handler))
			containers = append(containers, env.Run(pods[len(pods)-1], env.ContainerConfig("main", "sleep 1000"), config))
		}

		reload(t, env, fmt.Sprintf("[runtimes.other]\npath = %q\ndefault_annotations = { \"new\" = \"yes\" }\n", testenv.Program(t, env.RuntimeName)))
		if names := handlerNames(t, env); strings.Contains(names, "gone") || !strings.Contains(names, "other") {
			t.Errorf("handlers %s", names)
		}
		refuseHandler(t, env, "gone")
		for i, handler := range []string{"gone", "other"} {
			wantEqual(t, handler+": state", env.PodStatus(pods[i]).State, runtimeapi.PodSandboxState_SANDBOX_READY)
			wantEqual(t, handler+": exec", env.Exec(containers[i], "echo hi"), "hi\n")
			more := env.Run(pods[i], env.ContainerConfig("more", "sleep 1000"), env.PodConfig(handler))
			if _, err := os.Stat(filepath.Join(root, more)); err != nil {
				t.Errorf("%s: a later container is not below the old root: %v", handler, err)
			}
			wantEqual(t, handler+": annotation", specOf(t, containerSpec(t, env, more)).Annotations["new"], "")
		}
		changed := env.PodConfig("changed")
		ctr := env.Run(runWith(t, env, changed, "other"), env.ContainerConfig("main", "sleep 1000"), changed)
		wantEqual(t, "annotation by the changed handler", specOf(t, containerSpec(t, env, ctr)).Annotations["new"], "yes")

		hidden := bin + ".hidden"
		rename(t, bin, hidden) // still told, for pods have it
		env.Eventually("the missing binary to be told", func() error {
			if problems := verboseStatus(t, env, "problems"); !strings.Contains(problems, "gone-runtime") {
				return fmt.Errorf("problems %s", problems)
			}
			return nil
		})
		rename(t, hidden, bin)
		env.StopPod(pods[0])
		env.RemovePod(pods[0])
		env.Kill9() // the record has all that is needed
		env.StartDaemon()
		env.StopPod(pods[1])
		env.RemovePod(pods[1])
	})
}

// TestReloadTellsSystemd: that a reload begins, when, and that it is over, be it
// well or not; reloads that are asked for at once do not get lost.
func TestReloadTellsSystemd(t *testing.T) {
	notForPeers(t)
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hear := func(want string) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		n, err := conn.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Fatalf("it says %q (%v), want %q", buf[:n], err, want)
		}
	}
	env := testenv.Start(t, testenv.Options{Environ: []string{"NOTIFY_SOCKET=" + path}})
	hear("READY=1")
	reload(t, env, "pids_limit = 3\n")
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1\nSTATUS=")
	reload(t, env, "pids_limit = -3\n")
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1\nSTATUS=Configuration not reloaded")
	reload(t, env, "pids_limit = 4\n")
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1\nSTATUS=")
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	go func() { // the socket has room for few
		for buf := make([]byte, 1024); ; {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(env.Dir, "conf.d/10.toml"), fmt.Appendf(nil, "pids_limit = %d\n", 100+i), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(env.DaemonPID(), unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	env.Eventually("the last file to be in force", func() error {
		if config := verboseStatus(t, env, "config"); !strings.Contains(config, `"PidsLimit":119`) {
			return errors.New(config)
		}
		return nil
	})
}
