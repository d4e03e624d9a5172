package s3sink_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Given S3 and STS that are down for a day, with another failure every hour,
// while events arrive: memory fills, and then Track, Err, Stats and the log
// report it, and the log counts every refused event. S3 gets one small request
// at a time. When the outage ends, no operator has to act, every accepted event
// is stored once and in order, and Err, Stats and the log report the end.
func TestOutage_OfADay(t *testing.T) {
	t.Parallel()
	put := func(f s3sinktest.Fault) func(*s3sinktest.Server) {
		f.Operation = "PutObject"
		return func(s *s3sinktest.Server) { s.Inject(f) }
	}
	down := []func(*s3sinktest.Server){
		put(s3sinktest.Fault{Status: 503, Code: "SlowDown"}),
		func(s *s3sinktest.Server) { s.Refuse(true) },
		put(s3sinktest.Fault{Stall: true}),
		put(s3sinktest.Fault{Delay: 35 * time.Second}), // longer than the deadline of an attempt
		func(s *s3sinktest.Server) { s.Freeze(true) },
		put(s3sinktest.Fault{LoseResponse: true}),                                                  // stored
		func(s *s3sinktest.Server) { s.Inject(s3sinktest.Fault{Status: 502, Body: []byte(page)}) }, // for S3 and STS
		put(s3sinktest.Fault{CutAfter: 1000}),
		put(s3sinktest.Fault{ReadRate: 100}),
		put(s3sinktest.Fault{Status: 503, AnswerEarly: true}),
		put(s3sinktest.Fault{Status: 500, Code: "InternalError", CutAnswer: true}),
		func(s *s3sinktest.Server) { s.Inject(s3sinktest.Fault{Stall: true}) },
	}
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		puts := &meter{next: cfg.HTTPClient.Transport}
		cfg.HTTPClient.Transport = puts
		log := new(logLines)
		cfg.Logger = log.logger()
		cfg.MaxMemory = 1 << 20
		cfg.MaxEventBytes = 1 << 10
		cfg.Hooks.Parked = func(p s3sink.Parked) { t.Errorf("parked: %v", p.Err) }
		sink := open(t, cfg)
		sources := make([]*s3sink.Source, 3)
		for i := range sources {
			var err error
			if sources[i], err = sink.Source(fmt.Sprint("source-", i)); err != nil {
				t.Fatal(err)
			}
		}
		var refused int64
		taken := make([][]int, len(sources))
		random := rand.New(rand.NewPCG(1, 24))
		n := 0
		produce := func(d time.Duration) {
			for began := time.Now(); time.Since(began) < d; time.Sleep(4 * time.Second) {
				n++
				for w, src := range sources {
					switch err := src.Track(numbered{w, n, hex(random, 200)}); {
					case err == nil:
						taken[w] = append(taken[w], n)
					case errors.Is(err, s3sink.ErrBufferFull) && s3sink.Retryable(err):
						refused++
					default:
						t.Fatal(err)
					}
				}
			}
		}

		produce(time.Hour)
		if refused != 0 {
			t.Errorf("%d refused while S3 was up", refused)
		}
		for hour := range 24 {
			down[hour%len(down)](server)
			if hour == 0 {
				produce(10 * time.Minute) // the last attempts that began before the outage end
				puts.most.Store(0)
			}
			before := sink.Stats().Attempts
			produce(time.Hour)
			if n, most := sink.Stats().Attempts-before, puts.most.Load(); most > 1 || n < 30 || n > 170 {
				t.Errorf("hour %d: %d attempts, %d at once; want 50 to 120 or so, and 1", hour, n, most)
			}
			var failed *s3sink.UploadError
			if err, st := sink.Err(), sink.Stats(); !errors.As(err, &failed) || !s3sink.Retryable(err) || st.UploadError == nil || st.FailingSince.IsZero() {
				t.Errorf("hour %d: Err is %v, and Stats says %v since %v", hour, err, st.UploadError, st.FailingSince)
			}
			checkBooks(t, sink)
			server.ClearFaults()
			server.Refuse(false)
			server.Freeze(false)
		}
		if refused == 0 || sink.Stats().MemoryPeak > cfg.MaxMemory {
			t.Errorf("%d refused, peak %d: the outage did not fill the memory, or more", refused, sink.Stats().MemoryPeak)
		}
		waits := sink.Stats().Pending
		time.Sleep(2 * time.Minute)                               // a backoff, and the drain
		if st := sink.Stats(); st.Pending > 300 || waits < 3000 { // open objects are up to 5 minutes old
			t.Errorf("%d events waited; 2 minutes later %d", waits, st.Pending)
		}
		produce(time.Hour)
		if err, st := sink.Err(), sink.Stats(); err != nil || st.UploadError != nil || !st.FailingSince.IsZero() {
			t.Errorf("after the outage Err is %v, and Stats says %v since %v", err, st.UploadError, st.FailingSince)
		}
		mustClose(t, sink)
		logged, over := int64(0), log.with(t, againText)
		for _, line := range log.with(t, refusesText) {
			logged += line.Refused
		}
		if logged != refused || len(over) == 0 {
			t.Errorf("the log counts %d refused events of %d, and says %d times that events are taken again", logged, refused, len(over))
		}

		total := int64(0)
		stored := make([][]int, len(sources))
		for _, line := range lines(t, server, s3sinktest.Bucket) {
			var e numbered
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			stored[e.Worker] = append(stored[e.Worker], e.N)
		}
		for w := range sources {
			total += int64(len(taken[w]))
			if fmt.Sprint(stored[w]) != fmt.Sprint(taken[w]) {
				t.Errorf("source %d: %d events are stored of %d, or not in order", w, len(stored[w]), len(taken[w]))
			}
		}
		st := sink.Stats()
		if st.Accepted != total || st.Delivered != total || st.Rejected != refused || total+refused != int64(3*n) || st.LostAnswers == 0 {
			t.Errorf("%d calls, %d taken, %d refused: %+v", 3*n, total, refused, st)
		}
		t.Logf("%d taken, %d refused, %d objects in %d attempts, %d answers lost", total, refused, st.Objects, st.Attempts, st.LostAnswers)
	})
}

// meter counts the PUTs in progress, and their maximum.
type meter struct {
	next          http.RoundTripper
	running, most atomic.Int64
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut {
		return m.next.RoundTrip(r)
	}
	now := m.running.Add(1)
	defer m.running.Add(-1)
	for most := m.most.Load(); now > most && !m.most.CompareAndSwap(most, now); most = m.most.Load() {
	}
	return m.next.RoundTrip(r)
}
