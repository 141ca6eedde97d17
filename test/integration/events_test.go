package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

const (
	created = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT
	started = runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
	stopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	deleted = runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
)

type eventStream = grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse]

// subscribe returns a stream that misses nothing from now on.
func subscribe(t *testing.T, env *testenv.Env) eventStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	stream, err := env.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		t.Fatalf("GetContainerEvents: %v", err)
	}
	return stream
}

// record collects what a stream brings until it ends or done says so.
func record(stream eventStream, done func(*runtimeapi.ContainerEventResponse) bool) ([]*runtimeapi.ContainerEventResponse, error) {
	var all []*runtimeapi.ContainerEventResponse
	for {
		e, err := stream.Recv()
		if err != nil {
			return all, err
		}
		if all = append(all, e); done(e) {
			return all, nil
		}
	}
}

func deletedOf(id string) func(*runtimeapi.ContainerEventResponse) bool {
	return func(e *runtimeapi.ContainerEventResponse) bool {
		return e.ContainerId == id && e.ContainerEventType == deleted
	}
}

// story names events and what they say: "a created", "pod stopped NOTREADY".
func story(all []*runtimeapi.ContainerEventResponse, names map[string]string) string {
	var b strings.Builder
	for _, e := range all {
		kind := strings.TrimSuffix(strings.TrimPrefix(e.ContainerEventType.String(), "CONTAINER_"), "_EVENT")
		fmt.Fprintf(&b, "%s %s\n", names[e.ContainerId], strings.ToLower(kind))
	}
	return b.String()
}

// stateIn returns what an event says of a container; nil if nothing.
func stateIn(e *runtimeapi.ContainerEventResponse, id string) *runtimeapi.ContainerStatus {
	for _, c := range e.ContainersStatuses {
		if c.Id == id {
			return c
		}
	}
	return nil
}

// TestEvents: a pod's whole life as two subscribers hear it, and a third that
// goes away in between.
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		one, two := subscribe(t, env), subscribe(t, env)
		short, cancel := context.WithCancel(context.Background())
		if _, err := env.Runtime.GetContainerEvents(short, &runtimeapi.GetEventsRequest{}); err != nil {
			t.Fatal(err)
		}

		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		ends := env.Create(pod, env.ContainerConfig("ends", "exit 7"), config)
		cancel()
		env.Start(ends)
		env.WaitExit(ends)
		env.Remove(ends)
		killed := env.Run(pod, env.ContainerConfig("killed", "sleep 1000"), config)
		env.Stop(killed, 0)
		never := env.Create(pod, env.ContainerConfig("never", "true"), config)
		env.Remove(never)
		left := env.Run(pod, env.ContainerConfig("left", "sleep 1000"), config)
		ip := env.PodStatus(pod).Network.Ip
		env.RemovePod(pod)

		names := map[string]string{pod: "pod", ends: "ends", killed: "killed", never: "never", left: "left"}
		for _, stream := range []eventStream{one, two} {
			all, err := record(stream, deletedOf(pod))
			if err != nil {
				t.Fatalf("after %d events: %v", len(all), err)
			}
			got := story(all, names)
			// The pod's removal removes its containers at the same time.
			got = strings.Replace(got, "left deleted\nkilled deleted\n", "killed deleted\nleft deleted\n", 1)
			wantEqual(t, "events", got, `pod created
pod started
ends created
ends started
ends stopped
ends deleted
killed created
killed started
killed stopped
never created
never stopped
never deleted
left created
left started
left stopped
pod stopped
killed deleted
left deleted
pod deleted
`)
			for _, e := range all {
				checkEvent(t, e, names[e.ContainerId], config, ip)
			}
			checkTimes(t, all)
		}
	})
}

// checkEvent checks that an event's statuses say at least what it tells of.
func checkEvent(t *testing.T, e *runtimeapi.ContainerEventResponse, name string, config *runtimeapi.PodSandboxConfig, ip string) {
	t.Helper()
	what := name + " " + e.ContainerEventType.String()
	wantEqual(t, what+": pod's uid", e.PodSandboxStatus.GetMetadata().GetUid(), config.Metadata.Uid)
	wantEqual(t, what+": pod's IP", e.PodSandboxStatus.GetNetwork().GetIp(), ip)
	if name == "pod" {
		ready := e.ContainerEventType == created || e.ContainerEventType == started
		wantEqual(t, what+": ready", e.PodSandboxStatus.State == runtimeapi.PodSandboxState_SANDBOX_READY, ready)
		return
	}
	st := stateIn(e, e.ContainerId)
	if (st == nil) != (e.ContainerEventType == deleted) {
		t.Errorf("%s: the container's status is %v", what, st)
	}
	switch e.ContainerEventType {
	case started:
		if st.GetStartedAt() == 0 || st.GetState() == runtimeapi.ContainerState_CONTAINER_CREATED {
			t.Errorf("%s: %v", what, st)
		}
	case stopped:
		wantEqual(t, what+": state", st.GetState(), runtimeapi.ContainerState_CONTAINER_EXITED)
		want := map[string]int32{"ends": 7}[name]
		if name != "ends" {
			want = 137
		}
		wantEqual(t, what+": exit code", st.GetExitCode(), want)
		if st.GetFinishedAt() == 0 || st.GetReason() == "" {
			t.Errorf("%s: %v", what, st)
		}
	}
}

// checkTimes: a client that takes an older event for out of date loses none.
func checkTimes(t *testing.T, all []*runtimeapi.ContainerEventResponse) {
	t.Helper()
	for i := 1; i < len(all); i++ {
		if all[i].CreatedAt <= all[i-1].CreatedAt {
			t.Errorf("event %d is not later than the one before", i)
		}
	}
}

// TestEventsTellTheTruth: 100 short containers, some removed as soon as they
// have ended. Each is told in order, with the right exit code, and what
// ContainerStatus says when an event arrives is never behind it.
func TestEventsTellTheTruth(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, config *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		const count = 100
		stream := subscribe(t, env)
		exits := make(map[string]int32) // by container; guarded by mu
		var mu sync.Mutex
		var wg sync.WaitGroup
		slots := make(chan struct{}, 4)
		for i := range count {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				id := env.Create(pod, env.ContainerConfig(fmt.Sprint("c", i), fmt.Sprint("exit ", i)), config)
				mu.Lock()
				exits[id] = int32(i)
				mu.Unlock()
				env.Start(id)
				if i%2 == 0 {
					env.Remove(env.WaitExit(id).Id)
				}
			})
		}
		kinds := make(map[string][]runtimeapi.ContainerEventType)
		stops, wrong := 0, 0
		all, err := record(stream, func(e *runtimeapi.ContainerEventResponse) bool {
			kinds[e.ContainerId] = append(kinds[e.ContainerId], e.ContainerEventType)
			if behind(env, e) {
				wrong++
			}
			if e.ContainerEventType == stopped {
				stops++
			}
			return stops == count
		})
		wg.Wait()
		if err != nil {
			t.Fatalf("after %d events: %v", len(all), err)
		}
		wantEqual(t, "events that ContainerStatus was behind of", wrong, 0)
		for _, e := range all {
			want, ours := exits[e.ContainerId]
			if e.ContainerEventType != stopped {
				continue
			}
			if st := stateIn(e, e.ContainerId); !ours || st.GetExitCode() != want || st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
				t.Errorf("stopped event: exit code %d, want %d (%v)", st.GetExitCode(), want, st)
			}
		}
		for id, k := range kinds {
			order := fmt.Sprint(k)
			if whole := fmt.Sprint([]runtimeapi.ContainerEventType{created, started, stopped, deleted}); !strings.HasPrefix(whole, strings.TrimSuffix(order, "]")) || len(k) < 3 {
				t.Errorf("events of container %d: %s", exits[id], order)
			}
		}
		checkTimes(t, all)
	})
}

// behind reports whether ContainerStatus says less than the event.
func behind(env *testenv.Env, e *runtimeapi.ContainerEventResponse) bool {
	resp, err := env.Runtime.ContainerStatus(env.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: e.ContainerId})
	if err != nil {
		return false // it is removed: there is nothing beyond that
	}
	state := resp.Status.State
	switch e.ContainerEventType {
	case created:
		return false
	case started:
		return state == runtimeapi.ContainerState_CONTAINER_CREATED
	case stopped:
		return state != runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return true // deleted, and still there
}

// TestStuckSubscriber: one that never reads is dropped with ResourceExhausted.
// It delays nothing, and another one hears everything.
func TestStuckSubscriber(t *testing.T) {
	eachWith(t, testenv.Options{Config: "event_queue = 16"}, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		stuck, reads := subscribe(t, env), subscribe(t, env)
		config := env.PodConfig("pod")
		// Large events: the transport has room for few of them.
		config.Annotations = map[string]string{"large": strings.Repeat("x", 100<<10)}
		pod := env.RunPod(config)
		var heard int
		done := make(chan error, 1)
		go func() {
			all, err := record(reads, deletedOf(pod))
			heard = len(all)
			done <- err
		}()
		for i := range 12 { // 3 events each
			prompt(t, "create and remove", 20*time.Second, func() {
				env.Remove(env.Create(pod, env.ContainerConfig(fmt.Sprint("c", i), "true"), config))
			})
		}
		env.RemovePod(pod)
		if err := <-done; err != nil {
			t.Fatalf("the other subscriber: %v", err)
		}
		wantEqual(t, "events that the other one heard", heard, 12*3+4)
		all, err := record(stuck, func(*runtimeapi.ContainerEventResponse) bool { return false })
		wantCode(t, "the stuck subscriber", err, codes.ResourceExhausted)
		if len(all) >= heard {
			t.Errorf("the stuck subscriber got all %d events", len(all))
		}
	})
}

// TestEventsOfAnEndNobodyHeard: what ended while no daemon ran, or while nobody
// listened, is told to each subscriber that connects; nothing else is.
func TestEventsOfAnEndNobodyHeard(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		config := env.PodConfig("pod")
		pod := env.RunPod(config)
		dir := t.TempDir()
		mount := &runtimeapi.Mount{HostPath: dir, ContainerPath: "/gate"}
		waits := env.ContainerConfig("waits", "while [ ! -e /gate/end ]; do sleep 0.05; done; exit 6")
		waits.Mounts = []*runtimeapi.Mount{mount}
		ending := env.Run(pod, waits, config)
		running := env.Run(pod, env.ContainerConfig("running", "sleep 1000"), config)
		stream := subscribe(t, env)

		env.Kill9()
		_, err := record(stream, func(*runtimeapi.ContainerEventResponse) bool { return false })
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the stream of a dead daemon ended with %v", err)
		}
		pid := initPID(t, ending)
		touch(t, dir+"/end")
		env.Eventually("the container to end", func() error {
			if readProc(t, pid, "stat") != "" {
				return errors.New("it is there")
			}
			return nil
		})
		env.StartDaemon()
		env.WaitExit(ending)
		for range 2 {
			e, err := subscribe(t, env).Recv()
			if err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "event", story([]*runtimeapi.ContainerEventResponse{e}, map[string]string{ending: "ending"}), "ending stopped\n")
			wantEqual(t, "exit code", stateIn(e, ending).GetExitCode(), 6)
			wantEqual(t, "the other container", stateIn(e, running).GetState(), runtimeapi.ContainerState_CONTAINER_RUNNING)
		}

		env.Remove(ending)
		env.Stop(running, 0) // as a subscriber may still be known, this is heard or kept
		last := subscribe(t, env)
		env.RemovePod(pod)
		all, err := record(last, deletedOf(pod))
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{pod: "pod", running: "running", ending: "ending"}
		got := strings.TrimPrefix(story(all, names), "running stopped\n")
		wantEqual(t, "events", got, "pod stopped\nrunning deleted\npod deleted\n")
	})
}

// TestEventsEndWithTheDaemon: an orderly stop ends subscriptions before it waits
// for calls, and says so.
func TestEventsEndWithTheDaemon(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		stream := subscribe(t, env)
		env.StopDaemon()
		_, err := record(stream, func(*runtimeapi.ContainerEventResponse) bool { return false })
		wantCode(t, "the stream", err, codes.Unavailable)
		wantContains(t, "why it ended", fmt.Sprint(err), "the daemon is stopping")
		env.StartDaemon()
	})
}

// pausePID is the process that holds a pod's namespaces.
func pausePID(t *testing.T, env *testenv.Env, pod string) int {
	t.Helper()
	resp, err := env.Runtime.PodSandboxStatus(env.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(resp.Info["info"]), &info); err != nil || info.PID <= 0 {
		t.Fatalf("pid in %q: %v", resp.Info["info"], err)
	}
	return info.PID
}

// TestEventOfABrokenPod: the pod's end is told when its pause container ends by
// itself, and not again when it is stopped.
func TestEventOfABrokenPod(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		stream := subscribe(t, env)
		pod := env.RunPod(env.PodConfig("pod"))
		if err := syscall.Kill(pausePID(t, env, pod), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		all, err := record(stream, func(e *runtimeapi.ContainerEventResponse) bool { return e.ContainerEventType == stopped })
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "state", all[len(all)-1].PodSandboxStatus.State, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)
		env.RemovePod(pod)
		more, err := record(stream, deletedOf(pod))
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "events", story(append(all, more...), map[string]string{pod: "pod"}),
			"pod created\npod started\npod stopped\npod deleted\n")
	})
}

// TestEventsOfAFailedStart: a container that can't be started ends, and was
// never started; one that can't be created is not heard of.
func TestEventsOfAFailedStart(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		stream := subscribe(t, env)
		config := env.ContainerConfig("broken", "")
		config.Command = []string{"/no/such/program"}
		resp, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
		names := map[string]string{pod: "pod"}
		want := ""
		if err == nil { // the runtime looks for the program at start
			names[resp.ContainerId] = "broken"
			_, err = env.Runtime.StartContainer(env.Context(), &runtimeapi.StartContainerRequest{ContainerId: resp.ContainerId})
			if err == nil {
				t.Error("a program that does not exist was started")
			}
			want = "broken created\nbroken stopped\nbroken deleted\n"
			env.WaitExit(resp.ContainerId)
			env.Remove(resp.ContainerId)
		}
		env.RemovePod(pod)
		all, err := record(stream, deletedOf(pod))
		if err != nil {
			t.Fatal(err)
		}
		wantEqual(t, "events", story(all, names), want+"pod stopped\npod deleted\n")
	})
}
