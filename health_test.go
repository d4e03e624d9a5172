package s3sink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// logLines collects what a Logger writes, one JSON object a message.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// logLine is one log message about refused events or about the end of a
// shortage.
type logLine struct {
	Level, Msg, Error string
	Time              time.Time
	Refused           int64
	RefusedInAll      int64 `json:"refused_in_all"`
}

// with returns the messages that contain text, in their order.
func (l *logLines) with(t *testing.T, text string) (all []logLine) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if !strings.Contains(line, text) {
			continue
		}
		var got logLine
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, got)
	}
	return all
}

const (
	refusesText = "Track refuses events"
	againText   = "Track takes events again"
)

// Given S3 that refuses connections until memory is full, then the log reports
// the first refused event with the reason, the number of refused events once a
// minute, and the end of the shortage. The numbers add up to Stats.Rejected.
func TestOutage_LogsRefusedEvents(t *testing.T) {
	t.Parallel()
	for name, spooled := range map[string]bool{"memory": false, "spool": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				log := new(logLines)
				cfg.Logger, cfg.MaxMemory, cfg.MaxEventBytes, cfg.MaxObjectAge = log.logger(), 1<<20, 1<<10, 10*time.Second
				if spooled {
					cfg.SpoolDir, cfg.MaxSpoolBytes = t.TempDir()+"/spool", 1<<20
				}
				sink := open(t, cfg)
				server.Refuse(true)
				produce := func(until time.Duration) (first time.Time) {
					random := rand.New(rand.NewPCG(1, 1)) // random, so it does not compress
					for began := time.Now(); time.Since(began) < until; time.Sleep(50 * time.Millisecond) {
						if err := sink.Track(map[string]any{"text": hex(random, 450)}); errors.Is(err, s3sink.ErrBufferFull) && first.IsZero() {
							first = time.Now()
						}
					}
					return first
				}
				first := produce(10 * time.Minute)
				if first.IsZero() {
					t.Fatal("no event was refused: that shows nothing")
				}
				said := log.with(t, refusesText)
				if len(said) < 5 || len(said) > 11 {
					t.Fatalf("%d warnings in 10 minutes, want one a minute", len(said))
				}
				if !said[0].Time.Equal(first) || said[0].Refused != 1 || said[0].Level != "WARN" || !strings.Contains(said[0].Error, "connection refused") {
					t.Errorf("the first event was refused at %v, and the log says %+v", first, said[0])
				}
				server.Refuse(false)
				produce(5 * time.Minute)
				again := log.with(t, againText)
				if len(again) != 1 {
					t.Fatalf("events are taken again, and the log says so %d times", len(again))
				}
				if err, st := sink.Err(), sink.Stats(); err != nil || st.UploadError != nil || !st.FailingSince.IsZero() {
					t.Errorf("all is well, but Err is %v, and Stats says %v since %v", err, st.UploadError, st.FailingSince)
				}
				mustClose(t, sink)
				total := int64(0)
				for _, line := range log.with(t, refusesText) {
					total += line.Refused
				}
				if st := sink.Stats(); total != st.Rejected || again[0].Refused != total {
					t.Errorf("the log counts %d and in the end %d refused events, Stats %d", total, again[0].Refused, st.Rejected)
				}
			})
		})
	}
}

// Given a sink that is closed while events are refused, then the last warning
// counts the events that no earlier warning has counted.
func TestOutage_CloseLogsRefusedEvents(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		log := new(logLines)
		cfg.Logger, cfg.MaxMemory, cfg.MaxEventBytes = log.logger(), 1<<20, 1<<10
		sink := open(t, cfg)
		server.Refuse(true)
		random := rand.New(rand.NewPCG(1, 1))
		for range 4000 {
			sink.Track(map[string]any{"text": hex(random, 450)})
			time.Sleep(time.Millisecond)
		}
		closeWithin(t, sink, time.Second)
		total := int64(0)
		for _, line := range log.with(t, refusesText) {
			total += line.Refused
		}
		if st := sink.Stats(); st.Rejected == 0 || total != st.Rejected {
			t.Errorf("the log counts %d refused events, Stats %d", total, st.Rejected)
		}
	})
}

// Given an outage, then every error of a waiting call wraps the error of the
// last attempt. Stats has that error and the beginning of the outage at once;
// Err returns it after LastingOutage.
func TestOutage_ErrorsWrapLastUploadError(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory, cfg.MaxEventBytes = 1<<20, 1<<10
		sink := open(t, cfg)
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown"})
		slow := func(err error) bool {
			var failed *s3sink.UploadError
			return errors.As(err, &failed) && failed.Status == 503 && failed.Code == "SlowDown"
		}
		within := func(d time.Duration, f func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			return f(ctx)
		}
		began := time.Now()
		mustTrack(t, sink, struct{}{})
		if err := within(time.Second, sink.Flush); !errors.Is(err, context.DeadlineExceeded) || !slow(err) || !s3sink.Retryable(err) {
			t.Errorf("Flush: %v", err)
		}
		if st := sink.Stats(); !slow(st.UploadError) || !st.FailingSince.Equal(began) {
			t.Errorf("Stats: %v since %v, want the answer and %v", st.UploadError, st.FailingSince, began)
		}
		time.Sleep(s3sink.LastingOutage - time.Since(began) - time.Second)
		if err := sink.Err(); err != nil {
			t.Errorf("after %v Err is %v", time.Since(began), err)
		}
		time.Sleep(time.Second)
		if err := sink.Err(); !slow(err) || !s3sink.Retryable(err) {
			t.Errorf("after %v Err is %v", time.Since(began), err)
		}

		random := rand.New(rand.NewPCG(1, 1))
		line := func() []byte { return fmt.Appendf(nil, `{"text":"%s"}`, hex(random, 450)) }
		for refused := 0; refused < 100; time.Sleep(time.Millisecond) { // until compression can free no further memory
			if sink.TrackLine(line()) != nil {
				refused++
			}
		}
		if err := sink.TrackLine(line()); !errors.Is(err, s3sink.ErrBufferFull) || !slow(err) || !s3sink.Retryable(err) {
			t.Errorf("Track: %v", err)
		}
		err := within(time.Second, func(ctx context.Context) error { return sink.TrackLineContext(ctx, line()) })
		if !errors.Is(err, context.DeadlineExceeded) || !slow(err) {
			t.Errorf("TrackLineContext: %v", err)
		}
		if err := sink.Err(); !errors.Is(err, s3sink.ErrBufferFull) || !slow(err) {
			t.Errorf("events are refused, but Err is %v", err)
		}
		if err := closeWithin(t, sink, time.Second); !errors.Is(err, context.DeadlineExceeded) || !slow(err) {
			t.Errorf("Close: %v", err)
		}
	})
}

// Given a sink whose uploads work, when events arrive faster than memory is
// freed, then Err returns ErrBufferFull, and nil again after a minute.
func TestErr_RefusedEventsWhileUploadsWork(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.MaxMemory, cfg.MaxEventBytes = 1<<20, 1<<10
		server.Inject(s3sinktest.Fault{Operation: "PutObject", Delay: time.Second})
		sink := open(t, cfg)
		line := fmt.Appendf(nil, `{"text":"%s"}`, strings.Repeat("x", 900))
		for sink.TrackLine(line) == nil {
		}
		if err := sink.Err(); !errors.Is(err, s3sink.ErrBufferFull) {
			t.Errorf("an event was refused, but Err is %v", err)
		}
		time.Sleep(2*time.Minute + time.Second)
		if err := sink.Err(); err != nil {
			t.Errorf("events are taken again, but Err is %v", err)
		}
		mustClose(t, sink)
	})
}
