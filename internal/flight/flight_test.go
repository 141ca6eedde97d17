package flight

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-cri/gantry/internal/errkind"
)

func TestRetryJoinsWhatItsFirstCallBegan(t *testing.T) {
	var g Group
	var runs atomic.Int32
	release := make(chan struct{})
	work := func(ctx context.Context) (int, error) {
		runs.Add(1)
		<-release
		return 7, ctx.Err()
	}
	short, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	_, err := Do(short, &g, "run x", time.Minute, work)
	if errkind.Of(err) != errkind.Timeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("first call: %v, want a timeout", err)
	}
	got := make(chan int)
	go func() {
		v, err := Do(context.Background(), &g, "run x", time.Minute, work)
		if err != nil {
			t.Errorf("retry: %v", err)
		}
		got <- v
	}()
	time.Sleep(10 * time.Millisecond)
	close(release)
	if v := <-got; v != 7 || runs.Load() != 1 {
		t.Errorf("retry got %d after %d runs, want 7 after 1", v, runs.Load())
	}
}

func TestTheWorkHasALimitOfItsOwn(t *testing.T) {
	var g Group
	_, err := Do(context.Background(), &g, "k", time.Millisecond, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
