package s3sink_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given one event whose object the bucket refuses: the other sources go on for
// five times MaxSpoolBytes, and after a restart for as much again. The event is
// delivered once the bucket takes it. With another KeyFormat in the second run its
// object has a key that no new object has.
func TestSpool_RefusedObjectStopsNobody(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]s3sink.KeyFormat{"same keys": "", "another KeyFormat": s3sink.RudderStackKeys} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				cfg.SpoolDir, cfg.MaxSpoolBytes, cfg.MaxMemory, cfg.MaxEventBytes = t.TempDir()+"/spool", 1<<20, 1<<20, 64<<10
				cfg.MaxObjectAge = time.Second
				server.Inject(s3sinktest.Fault{
					Operation: "PutObject", Status: 403, Code: "AccessDenied",
					Match: func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/denied/") },
				})
				for run := range 2 {
					sink := open(t, cfg)
					if run == 0 {
						denied, err := sink.Source("denied")
						if err != nil {
							t.Fatal(err)
						}
						mustTrack(t, denied, []byte(`{"n":1}`))
						time.Sleep(2 * time.Second)
					}
					for n := range uint64(500) { // 5 MiB
						if err := sink.TrackLine(noise(n, 10_000)); err != nil {
							t.Fatalf("run %d, event %d: %v; %+v", run, n, err, sink.Stats())
						}
						time.Sleep(500 * time.Millisecond)
					}
					time.Sleep(2 * time.Second)
					if st := sink.Stats(); st.Pending != 1 || st.SpoolBytes > 2*cfg.MaxSpoolBytes/8+50_000 {
						t.Errorf("run %d: %+v", run, st)
					}
					if run == 1 {
						server.ClearFaults()
						time.Sleep(s3sink.DefaultRetryParked)
						if st := sink.Stats(); st.Pending != 0 {
							t.Errorf("the event is still not delivered: %+v", st)
						}
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					sink.Close(ctx)
					cancel()
					cfg.KeyFormat = next
				}
				if got := lines(t, server, s3sinktest.Bucket); len(got) != 1001 {
					t.Errorf("%d events in the bucket", len(got))
				}
			})
		})
	}
}
