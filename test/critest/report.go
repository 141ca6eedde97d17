package critest

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// A Spec is one spec of a report that ginkgo writes with --json-report.
type Spec struct {
	Name    string
	State   string // passed, failed, skipped, panicked, timedout, interrupted, aborted, pending
	Message string // why it failed or skipped itself
	RunTime time.Duration
}

// Failed reports whether the spec ran and did not pass.
func (s Spec) Failed() bool {
	return s.State != "passed" && s.State != "skipped" && s.State != "pending"
}

// ReadReport reads the specs of a report; set-up nodes that failed count as
// specs of their own.
func ReadReport(file string) ([]Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []struct {
		SpecReports []struct {
			ContainerHierarchyTexts []string
			LeafNodeText            string
			LeafNodeType            string
			State                   string
			RunTime                 time.Duration
			Failure                 struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &suites); err != nil {
		return nil, fmt.Errorf("read report %s: %w", file, err)
	}
	var specs []Spec
	for _, suite := range suites {
		for _, r := range suite.SpecReports {
			words := append(append([]string{}, r.ContainerHierarchyTexts...), r.LeafNodeText)
			spec := Spec{Name: strings.Join(words, " "), State: r.State, Message: r.Failure.Message, RunTime: r.RunTime}
			if r.LeafNodeType != "It" {
				if !spec.Failed() {
					continue
				}
				spec.Name = r.LeafNodeType
			}
			specs = append(specs, spec)
		}
	}
	return specs, nil
}
