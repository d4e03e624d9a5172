package s3sink_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given several goroutines that call Validate while events are tracked, when
// the sink is closed, then every Validate ends.
func TestValidateWhileTrackingAndClosing(t *testing.T) {
	t.Parallel()
	for range 20 { // each round closes the sink at a different moment
		_, cfg := s3sinktest.New(t)
		sink := open(t, cfg)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					if err := sink.Validate(t.Context()); errors.Is(err, s3sink.ErrClosed) {
						return
					} else if err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for i := range 200 {
					if err := sink.Track(map[string]int{"n": i}); err != nil && !errors.Is(err, s3sink.ErrClosed) {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			if err := sink.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if st := sink.Stats(); st.Accepted != st.Delivered {
			t.Errorf("%d events accepted, %d delivered", st.Accepted, st.Delivered)
		}
	}
}

// Given a Validate that waits for an answer, when the sink is closed, then
// Validate ends, and Close does not wait for the answer.
func TestCloseEndsValidate(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"GetCallerIdentity", "AssumeRole", "PutObject"} {
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			server.Inject(s3sinktest.Fault{Operation: operation, Stall: true})
			sink := open(t, cfg)
			said := make(chan error, 1)
			go func() { said <- sink.Validate(t.Context()) }()
			time.Sleep(time.Second)
			began := time.Now()
			mustClose(t, sink)
			if waited := time.Since(began); waited > time.Second {
				t.Errorf("%s: Close took %v", operation, waited)
			}
			if err := <-said; !errors.Is(err, s3sink.ErrClosed) {
				t.Errorf("%s: Validate says %v, want ErrClosed", operation, err)
			}
		})
	}
}
