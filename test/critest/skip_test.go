package critest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReadSkips(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       int
		ok         bool
	}{
		{"empty", "", 0, true},
		{"comments", "# a\n\n   # b\n", 0, true},
		{"two", "one  # because\ntwo (a|b)  # for another reason\n", 2, true},
		{"no reason", "one\n", 0, false},
		{"empty reason", "one  #  \n", 0, false},
		{"where the kernel has it", "one  # unless AppArmor: because\ntwo  # because\n", 1, true},
		{"where the kernel lacks it", "one  # unless SELinux: because\ntwo  # because\n", 2, true},
		{"no feature of a kernel", "one  # unless Kernel: because\n", 0, false},
		{"a feature and no reason", "one  # unless SELinux: \n", 0, false},
		{"bad expression", "one (  # because\n", 0, false},
	} {
		file := filepath.Join(t.TempDir(), "skip.txt")
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		skips, err := readSkips(file, func(feature string) (bool, error) {
			if feature == "Kernel" {
				return false, errors.New("unknown")
			}
			return feature == "AppArmor", nil
		})
		if (err == nil) != tt.ok || len(skips) != tt.want {
			t.Errorf("%s: got %v, %v", tt.name, skips, err)
		}
	}
}
