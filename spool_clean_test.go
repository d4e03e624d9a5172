package s3sink_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/vfs"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given one event whose object the bucket refuses, then the other sources
// deliver five times MaxSpoolBytes, and after a restart as much again. The
// event is delivered once the bucket accepts it. With another KeyFormat in the
// second run its key is not in the folder of new keys.
func TestSpool_RefusedObjectBlocksNoSource(t *testing.T) {
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

// Given a clock that was set back between two runs on one SpoolDir, by up to
// eighty years, and a first run that delivered everything or left an object,
// then the keys and the run id of the second run sort after the keys and the
// run id of the first. Keys of the second run have the day and the time of its
// clock.
func TestSpool_ClockGoesBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ahead time.Duration
		left  bool
	}{
		"all is delivered":        {time.Hour, false},
		"an object is left":       {time.Hour, true},
		"the clock was far ahead": {80 * 365 * 24 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				path := t.TempDir() + "/spool"
				cfg.Logger = slog.New(slog.DiscardHandler)
				var last s3sinktest.Object
				ahead := tt.ahead
				for run := range 4 {
					dir, err := vfs.Open(path, vfs.Options{})
					if err != nil {
						t.Fatal(err)
					}
					now := func() time.Time { return time.Now().Add(ahead) }
					sink, err := s3sink.NewOnDiskAt(t.Context(), cfg, dir, now)
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
					began := time.Now()
					mustTrack(t, sink, []byte(`{"n":1}`))
					mustFlush(t, sink)
					all := server.Objects(s3sinktest.Bucket)
					slices.SortFunc(all, func(a, b s3sinktest.Object) int { return cmp.Compare(uuidOf(a.Key), uuidOf(b.Key)) })
					newest := all[len(all)-1]
					if len(all) == 1 && run > 0 || newest.Key == last.Key || newest.Metadata["s3sink-run"] <= last.Metadata["s3sink-run"] {
						t.Errorf("run %d: %s of run %s is the last one, after %s of run %s",
							run, newest.Key, newest.Metadata["s3sink-run"], last.Key, last.Metadata["s3sink-run"])
					}
					if opened := fmt.Sprintf("/%d/%d.", began.Truncate(24*time.Hour).UnixMilli(), began.UnixMilli()); !strings.Contains(newest.Key, opened) {
						t.Errorf("run %d: %s is not of %s", run, newest.Key, opened)
					}
					last, ahead = newest, ahead-30*time.Minute
					if tt.left {
						server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503})
						mustTrack(t, sink, []byte(`{"n":2}`))
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					if err := sink.Close(ctx); (err != nil) != tt.left {
						t.Errorf("run %d: %v", run, err)
					}
					cancel()
					server.ClearFaults()
					if got := names(t, path); !tt.left && !slices.Equal(got, []string{vfs.LockName}) {
						t.Errorf("run %d: left %v", run, got)
					}
				}
			})
		})
	}
}
