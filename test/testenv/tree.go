package testenv

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Root returns the top directory of the source tree that the test runs in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module github.com/gantry-cri/gantry\n")) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the working directory is not below Gantry's source tree")
}

// Binary returns the path of a program that make builds into bin/.
func Binary(t testing.TB, name string) string {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "bin", name)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%s is not built (make bin/%s builds it): %v", name, name, err)
	}
	return file
}

// Program returns the path of a program that test/setup/install.sh installs.
func Program(t testing.TB, name string) string {
	t.Helper()
	file, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed (test/setup/install.sh does it): %v", name, err)
	}
	return file
}

// pluginDirs are where Debian's and everyone else's CNI plugins are.
func pluginDirs() []string { return []string{"/usr/lib/cni", "/opt/cni/bin"} }

// pluginDir returns the directory that holds the CNI plugins.
func pluginDir(t testing.TB) string {
	t.Helper()
	for _, dir := range pluginDirs() {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			return dir
		}
	}
	t.Fatalf("there are no CNI plugins in %v (test/setup/install.sh installs them)", pluginDirs())
	return ""
}
