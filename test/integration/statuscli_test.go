package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/internal/control"
	"github.com/gantry-cri/gantry/test/testenv"
)

// TestStatusCommand: an operator sees what is there and what is under way, also
// while a call hangs; and is told when no daemon answers.
func TestStatusCommand(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		env.Pull(testenv.Busybox)
		podConfig := env.PodConfig("pod")
		ctr := env.Run(env.RunPod(podConfig), env.ContainerConfig("main", "sleep 1000"), podConfig)
		ask := func() (s control.Status) {
			t.Helper()
			if err := json.Unmarshal([]byte(mustGantryd(t, env, "status", "-o", "json")), &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := ask()
		if s.Pods["ready"] != 1 || s.Containers["running"] != 1 || s.Images != 1 || s.PID != env.DaemonPID() || s.Listen != env.Socket || s.RSS == 0 || s.Files == 0 || len(s.Problems) > 0 {
			t.Errorf("status: %+v", s)
		}
		wantContains(t, "as text", mustGantryd(t, env, "status"), "pods        1 ready\ncontainers  1 running\nimages      1")

		hung := make(chan error, 1)
		go func() {
			_, err := env.Runtime.ExecSync(env.Context(), &runtimeapi.ExecSyncRequest{ContainerId: ctr, Cmd: []string{"sh", "-c", "until test -e /go; do sleep 0.1; done"}, Timeout: 50})
			hung <- err
		}()
		env.Eventually("the call to be told", func() error {
			if s := ask(); len(s.Calls) != 1 || s.Calls[0].RPC != "ExecSync" {
				return fmt.Errorf("calls: %v", s.Calls)
			}
			return nil
		})
		env.Exec(ctr, "touch /go")
		wantCode(t, "ExecSync", <-hung, codes.OK)

		if out, code := gantryd(t, env, "status", "-o", "yaml"); code != 1 {
			t.Errorf("an unknown format: exit code %d: %s", code, out)
		}
		env.Kill9()
		out, code := gantryd(t, env, "status")
		wantEqual(t, "exit code without a daemon", code, 1)
		wantContains(t, "without a daemon", out, "no daemon answers at ")
		env.StartDaemon()
	})
}
