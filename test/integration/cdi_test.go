package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestCDI: devices by the field and by annotations, with all that they bring;
// a specification that comes later is found; unknown devices are refused.
func TestCDI(t *testing.T) {
	notForPeers(t)
	base := t.TempDir()
	program := markHook(t, base)
	dir := filepath.Join(base, "cdi") // does not exist yet
	o := testenv.Options{Config: fmt.Sprintf("cdi_spec_dirs = [%q]", dir)}
	spec := func(kind string) string {
		return fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": %q,
"containerEdits": {"env": ["ALL=of the kind"]},
"devices": [{"name": "one", "containerEdits": {
 "env": ["GADGET=one"],
 "deviceNodes": [{"path": "/dev/gadget", "hostPath": "/dev/null", "permissions": "rw"}],
 "mounts": [{"hostPath": %q, "containerPath": "/gadget", "options": ["ro", "bind", "nosuid"]}],
 "hooks": [{"hookName": "createRuntime", "path": %q, "args": ["mark", "cdi"]}]}}]}`, kind, base, program)
	}
	eachWith(t, o, func(t *testing.T, env *testenv.Env) {
		env.Pull(testenv.Busybox)
		kind := env.Name + ".test/gadget"
		podConfig := env.PodConfig("pod")
		pod := env.RunPod(podConfig)
		create := func(name, device string) (*runtimeapi.CreateContainerResponse, error) {
			config := env.ContainerConfig(name, "sleep 1000")
			config.CDIDevices = []*runtimeapi.CDIDevice{{Name: device}}
			return env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
		}
		_, err := create("unknown", kind+"=one")
		wantCode(t, "device without a specification", err, codes.NotFound)
		_, err = create("bad", "gadget")
		wantCode(t, "no device name", err, codes.InvalidArgument)

		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, env.Name+".json"), []byte(spec(kind)), 0o644); err != nil {
			t.Fatal(err)
		}
		resp, err := create("field", kind+"=one")
		if err != nil {
			t.Fatal(err)
		}
		env.Start(resp.ContainerId)
		annotated := env.ContainerConfig("annotated", "sleep 1000")
		annotated.Annotations = map[string]string{"cdi.k8s.io/plugin_1": kind + "=one"}
		for _, id := range []string{resp.ContainerId, env.Run(pod, annotated, podConfig)} {
			wantEqual(t, "environment", env.Exec(id, "echo $GADGET $ALL"), "one of the kind\n")
			wantEqual(t, "device", env.Exec(id, "stat -c '%F %t %T' /dev/gadget; echo x > /dev/gadget && echo written"), "character special file 1 3\nwritten\n")
			wantEqual(t, "mount", env.Exec(id, "test -e /gadget/mark && echo there; touch /gadget/x 2>/dev/null || echo refused"), "there\nrefused\n")
			if _, err := os.Stat(filepath.Join(base, id+"-cdi")); err != nil {
				t.Errorf("the hook of the device: %v", err)
			}
		}
		_, err = create("unknown-of-kind", kind+"=two")
		wantCode(t, "unknown device of a known kind", err, codes.NotFound)

		broken := filepath.Join(dir, env.Name+"-broken.json")
		if err := os.WriteFile(broken, []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = create("unknown-again", kind+"=three")
		wantCode(t, "unknown device beside a broken file", err, codes.NotFound)
		wantContains(t, "problems", verboseStatus(t, env, "problems"), env.Name+"-broken.json")
		_, err = create("after-broken", kind+"=one")
		wantCode(t, "a good device beside a broken file", err, codes.OK)
	})
}
