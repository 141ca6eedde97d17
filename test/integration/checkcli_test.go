package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/check"
	"github.com/gantry-cri/gantry/test/testenv"
)

// TestCheck: a node that the tests run on is well, beside a daemon and without
// one; what is wrong is told, with an exit code, and nothing is changed.
func TestCheck(t *testing.T) {
	each(t, func(t *testing.T, env *testenv.Env) {
		notForPeers(t)
		fine := checked(t, env, 0)
		wantEqual(t, "the runtime", fine["runtime-"+env.RuntimeName].Level, check.OK)
		wantEqual(t, "the network", fine["cni"].Level, check.OK)
		wantEqual(t, "the programs", fine["programs"].Message, "the monitor and pause are in "+env.Root+"/bin")
		wantEqual(t, "the overlay", fine["overlay"].Level, check.OK)
		wantContains(t, "as text", mustGantryd(t, env, "check"), "\n0 errors, ")
		env.CheckLeaks()

		broken := script(t, env.Dir, "broken", "echo out of order >&2; exit 1")
		hung := script(t, env.Dir, "hung", "sleep 1000")
		old := script(t, env.Dir, "old", "echo crun version 1.5")
		configure(t, env, "[runtimes.broken]\npath = \""+broken+"\"\n[runtimes.missing]\npath = \"/none/crun\"\n[runtimes.old]\npath = \""+old+"\"\n")
		env.StopDaemon()
		wrong := checked(t, env, 1)
		wantContains(t, "a broken runtime", wrong["runtime-broken"].Message, "out of order")
		wantContains(t, "a missing runtime", wrong["runtime-missing"].Message, "/none/crun")
		wantContains(t, "an old runtime", wrong["runtime-old"].Message, "at least 1.8 is needed")
		wantEqual(t, "another runtime", wrong["runtime-"+env.RuntimeName].Level, check.OK)

		drop := filepath.Join(env.Dir, "conf.d", "10.toml")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(drop, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("[runtimes.hung]\npath = \"" + hung + "\"\n")
		prompt(t, "a check of a runtime that hangs", 10*time.Second, func() {
			wantContains(t, "a runtime that hangs", checked(t, env, 1)["runtime-hung"].Message, "no answer within 2s")
		})

		write("\nrot = \"/x\"\n")
		wrong = checked(t, env, 1)
		wantContains(t, "a bad configuration", wrong["configuration"].Message, drop+":2: rot: unknown key")

		write("")
		if err := env.WriteNetwork(withPlugin(env, "absent")); err != nil {
			t.Fatal(err)
		}
		wantContains(t, "an absent plugin", checked(t, env, 1)["cni"].Message, `CNI plugin "absent" is not in`)
		if err := env.WriteNetwork(env.Network()); err != nil {
			t.Fatal(err)
		}
		checked(t, env, 0)
		env.StartDaemon()
	})
}

// checked runs gantryd check and returns what it found, by name.
func checked(t *testing.T, env *testenv.Env, want int) map[string]check.Result {
	t.Helper()
	out, code := gantryd(t, env, "check", "--json")
	wantEqual(t, "exit code of a check", code, want)
	var list []check.Result
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found := map[string]check.Result{}
	for _, r := range list {
		found[r.Name] = r
		if r.Level == check.Error && want == 0 {
			t.Errorf("%+v", r)
		}
	}
	return found
}
