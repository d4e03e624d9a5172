package s3sink_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given answers that are lost after S3 has stored the object, then no object is
// there twice. With CreateOnly S3 stores it once; without it, a retry stores
// the same bytes with the same key.
func TestLostAnswer_TenThousand(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		create                s3sink.CreateOnly
		objects, writes, lost int
	}{
		"create only": {s3sink.CreateOnlyOn, 10_000, 1, 10_000},
		"overwrite":   {s3sink.CreateOnlyOff, 2_000, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				attempts := new(recorder)
				server.Inject(attempts.fault())
				server.Inject(s3sinktest.Fault{Operation: "PutObject", LoseResponse: true, Match: firstOfEachKey()})
				cfg.CreateOnly = tt.create
				cfg.MaxObjectEvents = 1
				sink := open(t, cfg)
				var want []string
				for i := range tt.objects {
					want = append(want, fmt.Sprintf(`{"n":%d}`, i))
					if err := sink.TrackLineContext(t.Context(), []byte(want[i])); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour) // 10,000 failures need a long time in backoff
				defer cancel()
				if err := sink.Close(ctx); err != nil {
					t.Fatal(err)
				}

				var got []string
				for _, o := range server.Objects(s3sinktest.Bucket) {
					if o.Writes != tt.writes {
						t.Fatalf("%s was written %d times, want %d", o.Key, o.Writes, tt.writes)
					}
					o.Writes = 1
					got = append(got, unpack(t, o).lines...)
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%d lines are stored of %d, or others", len(got), len(want))
				}
				st := sink.Stats()
				if n := server.StoredPuts(); n != tt.writes*tt.objects || st.LostAnswers != int64(tt.lost) || st.Attempts != int64(2*tt.objects) || st.Objects != int64(tt.objects) {
					t.Errorf("%d PUTs stored, %+v", n, st)
				}
				bodies := map[string]attempt{}
				for _, a := range attempts.seen() {
					if first, ok := bodies[a.key]; ok && a.body != first.body {
						t.Fatalf("the repeat for %s has other bytes", a.key)
					}
					bodies[a.key] = a
				}
			})
		})
	}
}

// firstOfEachKey matches the first request for each key.
func firstOfEachKey() func(*http.Request) bool {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		again := seen[r.URL.Path]
		seen[r.URL.Path] = true
		return !again
	}
}
