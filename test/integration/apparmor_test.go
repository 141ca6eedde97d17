package integration

import (
	"fmt"
	"os"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/gantry-cri/gantry/test/testenv"
)

// TestAppArmor: a profile that the kernel does not have is refused; where the
// kernel has AppArmor, every other container runs under the default profile.
func TestAppArmor(t *testing.T) {
	withPod(t, func(t *testing.T, env *testenv.Env, pod string, podConfig *runtimeapi.PodSandboxConfig) {
		notForPeers(t)
		_, err := os.Stat("/sys/kernel/security/apparmor/profiles")
		kernel := err == nil
		refusal := codes.Unimplemented
		if kernel {
			refusal = codes.FailedPrecondition
		}
		localhost := &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "gantry-test-not-loaded"}
		for name, sc := range map[string]*runtimeapi.LinuxContainerSecurityContext{
			"localhost":     {Apparmor: localhost},
			"localhost-old": {ApparmorProfile: "localhost/gantry-test-not-loaded"},
		} {
			config := env.ContainerConfig(name, "true")
			config.Linux.SecurityContext = sc
			_, err := env.Runtime.CreateContainer(env.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: podConfig})
			wantCode(t, name, err, refusal)
			wantContains(t, name, fmt.Sprint(err), "gantry-test-not-loaded")
		}
		bad := env.PodConfig("bad")
		bad.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Apparmor: localhost}
		_, err = env.Runtime.RunPodSandbox(env.Context(), &runtimeapi.RunPodSandboxRequest{Config: bad})
		wantCode(t, "pod", err, refusal)

		for name, profile := range map[string]*runtimeapi.SecurityProfile{
			"none": nil, "default": {ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, "unconfined": {ProfileType: runtimeapi.SecurityProfile_Unconfined},
		} {
			config := env.ContainerConfig(name, "cat /proc/self/attr/current >/profile; sleep 1000")
			config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{Apparmor: profile}
			id := env.Run(pod, config, podConfig)
			if !kernel {
				wantEqual(t, name, env.Exec(id, "echo hi"), "hi\n")
				continue
			}
			want := "gantry-default (enforce)\n"
			if name == "unconfined" {
				want = "unconfined\n"
			}
			env.Eventually("the container to have told its profile", func() error {
				if got := env.Exec(id, "cat /profile"); got != want {
					return fmt.Errorf("%s: %q, want %q", name, got, want)
				}
				return nil
			})
			wantEqual(t, name+": a command in it", env.Exec(id, "cat /proc/self/attr/current"), want)
		}
	})
}
