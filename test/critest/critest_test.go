package critest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/test/images"
	"github.com/gantry-cri/gantry/test/testenv"
)

var shared = &testenv.Images{Sets: []images.Set{images.Critest}}

func TestMain(m *testing.M) { os.Exit(testenv.Main(m, shared)) }

// TestCritest fails for each spec that fails, and for each line of the skip
// list that skips nothing.
func TestCritest(t *testing.T) {
	skips, err := ReadSkips("skip.txt")
	if err != nil {
		t.Fatal(err)
	}
	checkSkips(t, skips, dryRun(t))
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			env := testenv.Start(t, testenv.Options{Runtime: runtime, Registry: shared.Registry(t)})
			specs := run(t, env, skips, os.Getenv("CRITEST_FOCUS"))
			Judge(t, skips, specs)
		})
	}
}

// TestStreamingOverWebSocket runs the streaming specs once more: TestCritest
// runs them over SPDY.
func TestStreamingOverWebSocket(t *testing.T) {
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			env := testenv.Start(t, testenv.Options{Runtime: runtime, Registry: shared.Registry(t)})
			Judge(t, nil, run(t, env, nil, `\[k8s\.io\] Streaming`, "-websocket-exec", "-websocket-attach", "-websocket-portforward"))
		})
	}
}

func dryRun(t *testing.T) []Spec {
	report := filepath.Join(t.TempDir(), "dry.json")
	out, err := exec.Command(testenv.Binary(t, "critest"), "--ginkgo.dry-run", "--ginkgo.json-report="+report).CombinedOutput()
	if err != nil {
		t.Fatalf("list the specs of critest: %v: %s", err, out)
	}
	return readReport(t, report)
}

func checkSkips(t *testing.T, skips []Skip, specs []Spec) {
	for _, skip := range skips {
		matches := 0
		for _, spec := range specs {
			if spec.State != "skipped" && skip.Pattern.MatchString(spec.Name) {
				matches++
			}
		}
		if matches == 0 {
			t.Errorf("the skip list's %q (%s) matches no spec", skip.Pattern, skip.Reason)
		}
	}
}

// run runs the specs of critest that match focus (all for ""), four at a time:
// most of their time they sleep.
func run(t *testing.T, env *testenv.Env, skips []Skip, focus string, flags ...string) []Spec {
	report := filepath.Join(t.TempDir(), "report.json")
	args := append(flags,
		"--runtime-endpoint=unix://"+env.Socket,
		"--image-endpoint=unix://"+env.Socket,
		"--config="+filepath.Join(t.TempDir(), "none"),
		"--parallel=4",
		"--ginkgo.no-color",
		"--ginkgo.json-report="+report,
	)
	for _, skip := range skips {
		args = append(args, "--ginkgo.skip="+skip.Pattern.String())
	}
	if focus != "" {
		args = append(args, "--ginkgo.focus="+focus)
	}
	cmd := exec.Command(testenv.Binary(t, "critest"), args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(testenv.Binary(t, "ginkgo"))+":"+os.Getenv("PATH"))
	out := Output(t)
	cmd.Stdout, cmd.Stderr = out, out
	start := time.Now()
	err := cmd.Run()
	t.Logf("critest ran for %s", time.Since(start).Round(time.Second))
	if _, statErr := os.Stat(report); statErr != nil {
		t.Fatalf("critest wrote no report: %v", err)
	}
	return readReport(t, report)
}

func readReport(t *testing.T, file string) []Spec {
	specs, err := ReadReport(file)
	if err != nil {
		t.Fatal(err)
	}
	return specs
}
