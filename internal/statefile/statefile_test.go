package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type record struct {
	Name string                              `json:"name"`
	Pod  Proto[*runtimeapi.PodSandboxConfig] `json:"pod"`
}

func TestWriteThenRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	for _, write := range []func(string, int, any) error{Write, WriteSync} {
		want := record{Name: "x", Pod: Of(&runtimeapi.PodSandboxConfig{Hostname: "h"})}
		if err := write(path, 3, want); err != nil {
			t.Fatal(err)
		}
		var got record
		if err := Read(path, 3, &got); err != nil {
			t.Fatal(err)
		}
		if got.Name != "x" || got.Pod.Message.GetHostname() != "h" {
			t.Errorf("read %+v", got)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a record is for root only: %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(path + ".tmp"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary left behind: %v", err)
	}
}

func TestReadOfDamage(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{
		"empty":     "",
		"truncated": `{"version":1,"data":{"na`,
		"garbage":   "\x00\x01\x02",
		"version":   `{"version":2,"data":{}}`,
		"type":      `{"version":1,"data":[]}`,
		"proto":     `{"version":1,"data":{"pod":{"hostname":7}}}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Read(path, 1, &record{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, want ErrDamaged", name, err)
		}
	}
	if err := Read(dir, 1, &record{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a directory: %v, want ErrDamaged", err)
	}
	if err := Read(filepath.Join(dir, "absent"), 1, &record{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestFieldsOfANewerVersionAreDropped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	body := `{"version":1,"data":{"name":"x","new":1,"pod":{"hostname":"h","newer":{"a":1}}}}`
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	var got record
	if err := Read(path, 1, &got); err != nil || got.Pod.Message.GetHostname() != "h" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAFailedWriteKeepsTheOldRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	if err := Write(path, 1, record{Name: "old"}); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, 1, make(chan int)); err == nil {
		t.Error("a channel was written")
	}
	if err := os.Mkdir(path+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, 1, record{Name: "new"}); err == nil {
		t.Error("written through a directory")
	}
	var got record
	if err := Read(path, 1, &got); err != nil || got.Name != "old" {
		t.Errorf("%+v, %v", got, err)
	}
}
