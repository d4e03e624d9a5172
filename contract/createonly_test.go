package contract

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

var createOnly = []expectation{
	{
		name: "If-None-Match: * twice",
		aws:  "200, then 412 PreconditionFailed, and the first stays",
		see: func(t *testing.T, s *site) string {
			first := s.do(t, put("once/a", "first", "If-None-Match", "*"))
			second := s.do(t, put("once/a", "second", "If-None-Match", "*"))
			stays := "the second replaced it"
			if s.object(t, "once/a").body == "first" {
				stays = "the first stays"
			}
			return fmt.Sprintf("%s, then %s, and %s", first, second, stays)
		},
	},
	{
		name: "If-None-Match: * by 16 at once",
		aws:  "1 created it, 15 got 412 or 409",
		see: func(t *testing.T, s *site) string {
			var created, refused int
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					a := s.do(t, put("race/a", fmt.Sprint(i), "If-None-Match", "*"))
					mu.Lock()
					defer mu.Unlock()
					switch a.status {
					case http.StatusOK:
						created++
					case http.StatusPreconditionFailed, http.StatusConflict:
						refused++
					}
				})
			}
			wg.Wait()
			return fmt.Sprintf("%d created it, %d got 412 or 409", created, refused)
		},
	},
	{
		name: "If-None-Match: * needs s3:PutObject alone",
		aws:  "200, then 412 PreconditionFailed",
		see: func(t *testing.T, s *site) string {
			r := put("allowed/once", hello, "If-None-Match", "*").as(s.writer)
			return fmt.Sprintf("%s, then %s", s.do(t, r), s.do(t, r))
		},
	},
	{
		name:    "If-None-Match: * over 8 MiB, refused",
		aws:     "412 PreconditionFailed",
		differs: differs{versitygw: "no answer, at times"},
		see: func(t *testing.T, s *site) string {
			s.do(t, put("once-large/a", hello))
			return s.large(t, put("once-large/a", "", "If-None-Match", "*"))
		},
	},
	{
		name:    "If-None-Match: * over 8 MiB, refused, with Expect: 100-continue",
		aws:     "412 PreconditionFailed",
		differs: differs{versitygw: "no answer, at times"},
		see: func(t *testing.T, s *site) string {
			s.do(t, put("once-expect/a", hello))
			return s.large(t, put("once-expect/a", "", "If-None-Match", "*", "Expect", "100-continue"))
		},
	},
}

// large sends a request with a body of 8 MiB that the server must refuse, 10
// times. It checks that each answer can be read: a server that closes the
// connection while the client sends the body destroys its own answer.
func (s *site) large(t *testing.T, r request) string {
	t.Helper()
	body := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	r.payload = "UNSIGNED-PAYLOAD"
	says := ""
	for i := range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req := s.sign(ctx, t, r)
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.ContentLength = int64(len(body))
		a := s.send(t, req)
		cancel()
		switch {
		case a.status == 0:
			return "no answer, at times"
		case i > 0 && a.String() != says:
			return says + ", then " + a.String()
		}
		says = a.String()
	}
	return says
}
