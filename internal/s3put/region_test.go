package s3put_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/internal/s3put"
)

// Given no region, when an object is put, then an unsigned HEAD asks for the region,
// and a signed HEAD if the first answer does not name it. Without a region the error
// names Config.Region.
func TestRegionDiscovery(t *testing.T) {
	t.Parallel()
	const region = "X-Amz-Bucket-Region"
	for name, tt := range map[string]struct {
		unsigned, signed *http.Response
		want             string // host of the PUT, "" for none
		heads            int
		class            s3put.Class
	}{
		"refused but named": {answer(403, "", region, "ap-south-1"), nil, "events.s3.ap-south-1.amazonaws.com", 1, 0},
		"redirected":        {answer(301, "", region, "eu-central-1", "Location", "https://elsewhere.example.com/"), nil, "events.s3.eu-central-1.amazonaws.com", 1, 0},
		"public bucket":     {answer(200, "", region, "us-west-2"), nil, "events.s3.us-west-2.amazonaws.com", 1, 0},
		"anonymous ignored": {answer(403, ""), answer(200, "", region, "cn-north-1"), "events.s3.cn-north-1.amazonaws.com.cn", 2, 0},
		"no such bucket":    {answer(404, ""), answer(404, ""), "", 2, s3put.Parked},
		"unnamed":           {answer(403, ""), answer(403, ""), "", 2, s3put.Parked},
		"S3 is down":        {answer(503, ""), answer(503, ""), "", 2, s3put.Transient},
	} {
		heads := 0
		tr := &transport{answer: func(r *http.Request) *http.Response {
			if r.Method != "HEAD" {
				return answer(200, "")
			}
			heads++
			if r.Header.Get("Authorization") == "" {
				return tt.unsigned
			}
			return tt.signed
		}}
		c := client(t, tr, func(s *s3put.Settings) { s.Region = "" })
		_, err := c.Put(t.Context(), request())
		if heads != tt.heads {
			t.Errorf("%s: %d HEADs, want %d", name, heads, tt.heads)
		}
		if tt.want == "" {
			var e *s3put.Error
			if !errors.As(err, &e) || e.Class != tt.class || !strings.Contains(err.Error(), "Config.Region") {
				t.Errorf("%s: %v, want class %v and the field to set", name, err, tt.class)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if host := tr.seen[len(tr.seen)-1].URL.Host; host != tt.want {
			t.Errorf("%s: PUT to %s, want %s", name, host, tt.want)
		}
	}
}

// Given an endpoint that is not AWS and no region, then no HEAD is sent.
func TestNoDiscoveryElsewhere(t *testing.T) {
	t.Parallel()
	tr := &transport{answer: func(*http.Request) *http.Response { return answer(200, "") }}
	c := client(t, tr, func(s *s3put.Settings) {
		s.Region, s.Endpoint, s.PathStyle = "", "https://minio.example.com:9000", true
	})
	if _, err := c.Put(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	if len(tr.seen) != 1 || tr.seen[0].URL.Host != "minio.example.com:9000" || tr.seen[0].URL.Path != "/events/a/b.gz" {
		t.Errorf("%d requests, the first to %s", len(tr.seen), tr.seen[0].URL)
	}
}

// Given parallel uploads without a region, then one HEAD is sent for all.
func TestRegionIsAskedOnce(t *testing.T) {
	t.Parallel()
	var heads atomic.Int64
	tr := &transport{answer: func(r *http.Request) *http.Response {
		if r.Method == "HEAD" {
			heads.Add(1)
		}
		return answer(200, "", "X-Amz-Bucket-Region", "us-west-2")
	}}
	c := client(t, tr, func(s *s3put.Settings) { s.Region = "" })
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := c.Put(t.Context(), request()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if heads.Load() != 1 {
		t.Errorf("%d HEADs, want 1", heads.Load())
	}
}

// Given credentials whose use for region discovery failed, when Renew is called,
// then they are renewed too.
func TestRenewWithoutARegion(t *testing.T) {
	t.Parallel()
	made := 0
	cache := aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		made++
		return aws.Credentials{AccessKeyID: "ASIA", SecretAccessKey: "s", SessionToken: "t"}, nil
	}))
	tr := &transport{answer: func(*http.Request) *http.Response { return answer(403, "") }}
	c := client(t, tr, func(s *s3put.Settings) {
		s.Region, s.Credentials = "", func(string) aws.CredentialsProvider { return cache }
	})
	for range 2 {
		if _, err := c.Region(t.Context()); err == nil {
			t.Error("found")
		}
		c.Renew()
	}
	if made != 2 {
		t.Errorf("%d sessions, want 2", made)
	}
}

// Given an upload that waits for the region discovery of another, when its ctx ends,
// then it returns.
func TestWaitingForTheRegionEndsWithContext(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	tr := &transport{answer: func(r *http.Request) *http.Response {
		if r.Method == "HEAD" {
			close(asked)
			<-release
		}
		return answer(200, "", "X-Amz-Bucket-Region", "us-west-2")
	}}
	c := client(t, tr, func(s *s3put.Settings) { s.Region = "" })
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Put(t.Context(), request()); err != nil {
			t.Error(err)
		}
	})
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Put(ctx, request()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
	close(release)
	wg.Wait()
}

// Given a bucket that was deleted and created in another region, then uploads find
// the new region.
func TestRegionIsLearntAnew(t *testing.T) {
	t.Parallel()
	const home = "X-Amz-Bucket-Region"
	for name, tt := range map[string]struct {
		moved *http.Response
		heads int
	}{
		"redirect that names it":         {s3Error(301, "PermanentRedirect", home, "eu-west-3"), 1},
		"redirect that does not":         {s3Error(301, "PermanentRedirect"), 2},
		"signature for the wrong region": {s3Error(400, "AuthorizationHeaderMalformed", home, "eu-west-3"), 1},
		"opt-in region":                  {s3Error(400, "IllegalLocationConstraintException"), 2},
	} {
		heads := 0
		tr := &transport{answer: func(r *http.Request) *http.Response {
			switch {
			case r.Method == "HEAD" && heads == 0:
				heads++
				return answer(200, "", home, "us-west-2")
			case r.Method == "HEAD":
				heads++
				return answer(200, "", home, "eu-west-3")
			case r.URL.Host == "events.s3.us-west-2.amazonaws.com":
				return tt.moved
			}
			return answer(200, "")
		}}
		c := client(t, tr, func(s *s3put.Settings) { s.Region = "" })
		_, err := c.Put(t.Context(), request())
		var e *s3put.Error
		if !errors.As(err, &e) || e.Class != s3put.Elsewhere {
			t.Errorf("%s: %v, want class elsewhere", name, err)
		}
		if _, err := c.Put(t.Context(), request()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if host := tr.seen[len(tr.seen)-1].URL.Host; host != "events.s3.eu-west-3.amazonaws.com" || heads != tt.heads {
			t.Errorf("%s: PUT to %s after %d HEADs, want %d", name, host, heads, tt.heads)
		}
	}
}

// Given a wrong region in the settings, then it is kept, and the error names the
// right region.
func TestGivenRegionIsKept(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]string{"AWS": "", "another store": "https://minio.example.com"} {
		tr := &transport{answer: func(*http.Request) *http.Response {
			return s3Error(301, "PermanentRedirect", "X-Amz-Bucket-Region", "eu-west-3")
		}}
		c := client(t, tr, func(s *s3put.Settings) { s.Endpoint = endpoint })
		for range 2 {
			_, err := c.Put(t.Context(), request())
			var e *s3put.Error
			if !errors.As(err, &e) || e.Class != s3put.Parked || !strings.Contains(err.Error(), "the bucket is in eu-west-3, not in eu-west-1") {
				t.Errorf("%s: %v, want class parked and the right region", name, err)
			}
		}
		if len(tr.seen) != 2 || tr.seen[0].URL.Host != tr.seen[1].URL.Host {
			t.Errorf("%s: %d requests", name, len(tr.seen))
		}
	}
}
