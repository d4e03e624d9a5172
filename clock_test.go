package s3sink_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata" // for TestTimeZones, wherever it runs

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// otherClock is an S3 and STS with a clock of its own. It refuses requests that
// were signed more than 15 minutes from its time.
type otherClock struct {
	mu       sync.Mutex
	ahead    time.Duration
	puts     int
	sessions int
}

func (s *otherClock) set(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

func (s *otherClock) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().Add(s.ahead).UTC()
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Request: r,
			Header: http.Header{"Date": {now.Format(http.TimeFormat)}, "X-Amz-Request-Id": {"R1"}, "Etag": {`"e"`}},
			Body:   io.NopCloser(strings.NewReader(body)),
		}, nil
	}
	skewed := now.Sub(signed).Abs() > 15*time.Minute
	switch {
	case r.Method == http.MethodPost && skewed:
		return answer(403, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>Signature expired</Message></Error></ErrorResponse>")
	case r.Method == http.MethodPost:
		s.sessions++
		return answer(200, fmt.Sprintf("<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"+
			"<SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>", now.Add(time.Hour).Format(time.RFC3339)))
	case skewed:
		s.puts++
		return answer(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>")
	}
	s.puts++
	return answer(200, "")
}

// Given a clock that becomes wrong by any amount at any time, then it costs one
// attempt, and no extra sessions.
func TestClock_WrongByHours(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	for name, credentials := range map[string]s3sink.Credentials{
		"keys": s3sink.AccessKeys("AKIA", "secret", ""),
		"role": s3sink.AssumeRole(s3sinktest.RoleARN, "", s3sink.Via(s3sink.AccessKeys("AKIA", "secret", ""))),
	} {
		for _, ahead := range []time.Duration{20 * time.Minute, -20 * time.Minute, year, -year} {
			t.Run(fmt.Sprint(name, " ", ahead), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					server := &otherClock{ahead: ahead}
					cfg := new(nullStore).config()
					cfg.HTTPClient = &http.Client{Transport: server}
					cfg.Credentials = credentials
					cfg.Hooks.Parked = func(p s3sink.Parked) { t.Errorf("parked: %v", p.Err) }
					sink := open(t, cfg)
					attempts := func(want int64) {
						t.Helper()
						before, began := sink.Stats().Attempts, time.Now()
						mustTrack(t, sink, struct{}{})
						mustFlush(t, sink)
						if n := sink.Stats().Attempts - before; n != want || time.Since(began) > 10*time.Second {
							t.Errorf("%d attempts in %v, want %d", n, time.Since(began), want)
						}
					}
					attempts(2) // the S3 client does not know the offset that the STS client found
					for range 5 * 12 {
						time.Sleep(5 * time.Minute)
						attempts(1)
					}
					server.set(0) // an operator corrects the clock
					attempts(2)
					server.set(ahead)
					attempts(2)
					attempts(1)
					mustClose(t, sink)
					if name == "role" && (server.sessions < 5 || server.sessions > 8) {
						t.Errorf("%d sessions in 5 hours, want 5 to 8", server.sessions)
					}
				})
			})
		}
	}
}

// Given a machine that slept for days, when an event is tracked, then no
// attempt fails and no event is stored twice.
func TestSink_WakesAfterDays(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		twoHops(server, &cfg)
		sink := open(t, cfg)
		for day := range 4 {
			mustTrack(t, sink, struct{}{})
			time.Sleep(72 * time.Hour)
			if n := len(server.Objects(s3sinktest.Bucket)); n != day+1 {
				t.Errorf("%d objects after %d events, each closed by its age", n, day+1)
			}
		}
		mustClose(t, sink)
		if st := sink.Stats(); st.Attempts != 4 || count(server, "AssumeRole") != 8 {
			t.Errorf("%d attempts and %d sessions, want 4 and 4 of two roles", st.Attempts, count(server, "AssumeRole"))
		}
	})
}

// Given other time zones, then keys, days and timestamps are UTC: the tests
// that check them pass in those zones.
func TestTimeZones(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has one time zone for all processes")
	}
	if os.Getenv("S3SINK_TEST_ZONE") != "" {
		if _, offset := time.Now().Zone(); offset == 0 {
			t.Fatal("TZ has no effect")
		}
		return
	}
	for _, zone := range []string{"Pacific/Kiritimati", "America/St_Johns"} { // 14 hours ahead, 3½ behind
		cmd := exec.Command(os.Args[0], "-test.run", "^(TestTimeZones|TestReceivedDay|TestKeyFormats|TestObject|TestSegmentCalls|TestReceivedAt.*)$")
		cmd.Env = append(os.Environ(), "TZ="+zone, "S3SINK_TEST_ZONE="+zone)
		if out, err := cmd.CombinedOutput(); err != nil {
			var failed *exec.ExitError
			if !errors.As(err, &failed) {
				t.Fatal(err)
			}
			t.Errorf("in %s:\n%s", zone, out)
		}
	}
}
