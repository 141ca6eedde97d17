package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sized is an image whose encoding has about n bytes.
func sized(i, n int) *runtimeapi.Image {
	return &runtimeapi.Image{Id: fmt.Sprint(i), Username: strings.Repeat("x", n)}
}

func TestBatches(t *testing.T) {
	for _, tc := range []struct {
		name    string
		sizes   []int
		batches []int // how many items each has
	}{
		{"nothing", nil, nil},
		{"one", []int{10}, []int{1}},
		{"all in one", []int{100, 100, 100}, []int{3}},
		{"two and one", []int{480, 480, 480}, []int{2, 1}},
		{"larger than a batch", []int{10, 5000, 10, 10}, []int{1, 1, 2}},
		{"only large ones", []int{5000, 5000}, []int{1, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var items, got []*runtimeapi.Image
			for i, n := range tc.sizes {
				items = append(items, sized(i, n))
			}
			var batches []int
			err := sendBatches(slices.Values(items), 1000, func(b []*runtimeapi.Image) error {
				if size := proto.Size(&runtimeapi.StreamImagesResponse{Images: b}); size > 1000 && len(b) > 1 {
					t.Errorf("a batch of %d has %d bytes", len(b), size)
				}
				batches, got = append(batches, len(b)), append(got, b...)
				return nil
			})
			if err != nil || !slices.Equal(batches, tc.batches) || !slices.Equal(got, items) {
				t.Errorf("got batches %v, %v; want %v with every item in order", batches, err, tc.batches)
			}
		})
	}
}

// TestBatchFillsExactly: what just fits is sent together.
func TestBatchFillsExactly(t *testing.T) {
	items := []*runtimeapi.Image{sized(1, 300), sized(2, 300)}
	size := proto.Size(&runtimeapi.StreamImagesResponse{Images: items})
	for less, want := range []int{1, 2} {
		n := 0
		err := sendBatches(slices.Values(items), size-less, func([]*runtimeapi.Image) error { n++; return nil })
		if err != nil || n != want {
			t.Errorf("with %d bytes: %d batches, %v; want %d", size-less, n, err, want)
		}
	}
}

func TestBatchesEndWithTheClient(t *testing.T) {
	gone := errors.New("gone")
	made, sent := 0, 0
	items := func(yield func(*runtimeapi.Image) bool) {
		for i := range 100 {
			made++
			if !yield(sized(i, 900)) {
				return
			}
		}
	}
	err := sendBatches(items, 1000, func([]*runtimeapi.Image) error { sent++; return gone })
	if !errors.Is(err, gone) || sent != 1 || made > 2 {
		t.Errorf("got %v after %d batches and %d items, want the error after the first", err, sent, made)
	}
}
