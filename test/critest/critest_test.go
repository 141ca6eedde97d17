package critest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
			judge(t, skips, specs)
		})
	}
}

// TestStreamingOverWebSocket runs the streaming specs once more: TestCritest
// runs them over SPDY.
func TestStreamingOverWebSocket(t *testing.T) {
	for _, runtime := range testenv.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			env := testenv.Start(t, testenv.Options{Runtime: runtime, Registry: shared.Registry(t)})
			judge(t, nil, run(t, env, nil, `\[k8s\.io\] Streaming`, "-websocket-exec", "-websocket-attach", "-websocket-portforward"))
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
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	t.Logf("critest ran for %s", time.Since(start).Round(time.Second))
	keepOutput(t, out.Bytes())
	if _, statErr := os.Stat(report); statErr != nil {
		t.Fatalf("critest wrote no report: %v: %s", err, out.String())
	}
	return readReport(t, report)
}

// keepOutput leaves critest's full output below build/, for who looks for the
// cause of a failure.
func keepOutput(t *testing.T, out []byte) {
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "build", strings.ReplaceAll(t.Name(), "/", "-")+".log")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, out, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("critest's output is in %s", file)
}

func readReport(t *testing.T, file string) []Spec {
	specs, err := ReadReport(file)
	if err != nil {
		t.Fatal(err)
	}
	return specs
}

func judge(t *testing.T, skips []Skip, specs []Spec) {
	var passed, failed, skipped int
	for _, spec := range specs {
		if skip, ok := skippedBy(skips, spec); ok && spec.State != "skipped" {
			t.Errorf("%s ran though the skip list's %q matches it", spec.Name, skip.Pattern)
		}
		switch {
		case spec.Failed():
			failed++
			t.Errorf("%s: %s: %s", spec.State, spec.Name, spec.Message)
		case spec.State == "passed":
			passed++
		default:
			skipped++
			if spec.Message != "" {
				t.Logf("skipped itself: %s: %s", spec.Name, spec.Message)
			}
		}
	}
	t.Logf("critest: %d passed, %d failed, %d skipped", passed, failed, skipped)
	if passed == 0 {
		t.Error("no spec passed")
	}
}

func skippedBy(skips []Skip, spec Spec) (Skip, bool) {
	for _, skip := range skips {
		if skip.Pattern.MatchString(spec.Name) {
			return skip, true
		}
	}
	return Skip{}, false
}
