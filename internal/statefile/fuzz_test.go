package statefile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzRead: whatever a file holds is a record or damaged, and a record can be
// written and read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"version":1,"data":{"name":"x","pod":{"hostname":"h","metadata":{"name":"n"}}}}`))
	f.Add([]byte(`{"version":1,"data":null}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"data":{"pod":null}} trailing`))
	path := filepath.Join(f.TempDir(), "r.json")
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		var got, again record
		if err := Read(path, 1, &got); err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		if err := Write(path, 1, got); err != nil {
			t.Fatalf("%q: write what was read: %v", body, err)
		}
		if err := Read(path, 1, &again); err != nil || again.Name != got.Name || again.Pod.Message.GetHostname() != got.Pod.Message.GetHostname() {
			t.Errorf("%q: read back as %+v, %v", body, again, err)
		}
	})
}
