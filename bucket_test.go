package s3sink_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/s3sink/s3sink"
)

// Given the name of a bucket that the sink cannot write to, then New refuses
// the name and suggests an alternative. At an endpoint other than AWS, New
// refuses only the names that the AWS SDK treats specially there too.
func TestNew_ReservedBucketName(t *testing.T) {
	t.Parallel()
	for bucket, tt := range map[string]struct {
		want      string // part of the error at AWS; "": accepted
		elsewhere bool   // refused at other endpoints too
	}{
		"acme--use1-az4--x-s3":   {"general purpose bucket", true},
		"acme--use1-az4--xa-s3":  {"general purpose bucket", true},
		"acme-123abc--op-s3":     {"general purpose bucket", true},
		"acme-123abc--ol-s3":     {"the bucket behind the access point", false},
		"acme--table-s3":         {"general purpose bucket", false},
		"mfzwi23gnjvgw.mrap":     {"one of the buckets behind it", false},
		"xn--acme":               {"xn--", false},
		"sthree-acme":            {"sthree-", false},
		"sthree-configurator":    {"sthree-", false},
		"amzn-s3-demo-bucket":    {"your own bucket", false},
		"acme..events":           {"..", false},
		"acme.-events":           {".-", false},
		"acme-.events":           {"-.", false},
		"192.168.5.4":            {"Endpoint", false},
		"192.168.5.400":          {"Endpoint", false},
		"Acme_Events":            {"3 to 63", false},
		"acme":                   {"", false},
		"acme--events":           {"", false},
		"acme-s3":                {"", false},
		"x-s3":                   {"", false},
		"acme-abc123-s3alias":    {"", false}, // an access point takes objects like a bucket
		"acme-events-111122-an":  {"", false},
		"1.2.3.4.5":              {"", false},
		"acme.xn--events":        {"", false},
		"acme--use1-az4--x-s3/a": {"general purpose bucket", true},
	} {
		for _, endpoint := range []string{"", "https://s3.example.com"} {
			cfg := new(nullStore).config()
			cfg.Bucket, cfg.Endpoint, cfg.Region = bucket, endpoint, ""
			_, err := s3sink.New(t.Context(), cfg)
			refused := tt.want != "" && (endpoint == "" || tt.elsewhere)
			var wrong *s3sink.ConfigError
			switch {
			case !refused && err != nil:
				t.Errorf("%s at %q: %v, want it accepted", bucket, endpoint, err)
			case refused && (!errors.As(err, &wrong) || wrong.Field != "Bucket" || !strings.Contains(wrong.Want, tt.want)):
				t.Errorf("%s at %q: %v, want Bucket refused with %q", bucket, endpoint, err, tt.want)
			}
		}
	}
}

// oneBucket is a transport that answers like a store with every bucket. It
// checks that every request is for the bucket with that name.
type oneBucket struct {
	t    *testing.T
	name string
}

func (b oneBucket) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Host, b.name+".") && !strings.HasPrefix(r.URL.Path, "/"+b.name) {
		b.t.Errorf("%s %s, want bucket %q", r.Method, r.URL, b.name)
	}
	if r.Body != nil {
		r.Body.Close()
	}
	header := http.Header{"Etag": {`"e"`}, "X-Amz-Bucket-Region": {"eu-west-1"}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: http.NoBody, Request: r}, nil
}

// Given any Bucket, then New refuses it, or a tracked event is stored in it.
func FuzzBucket(f *testing.F) {
	for _, bucket := range []string{"acme", "acme-events/path", "acme.events", "acme--use1-az4--x-s3", "acme--use1-az4--xa-s3",
		"acme-o01234567890123456ec2000-4d5e6f7890abcdefghijklmnopq--op-s3", "acme--ol-s3", "acme--table-s3", "a.mrap", "xn--a", "sthree-a",
		"a..b", "a.-b", "a-.b", "10.0.0.1", "::1", "", "A_b", "arn:aws:s3:::acme", "s3://acme", "a--b--x-s3", "aws", "s3", "a.s3", strings.Repeat("a", 255)} {
		for variant := range uint8(16) {
			f.Add(bucket, variant)
		}
	}
	f.Fuzz(func(t *testing.T, bucket string, variant uint8) {
		cfg := new(nullStore).config()
		cfg.Bucket = bucket
		cfg.Region = []string{"", "eu-west-1"}[variant&1]
		cfg.UsePathStyle = variant&2 != 0
		cfg.Endpoint = []string{"", "", "https://s3.example.com", "https://10.0.0.1:9000"}[variant>>2&3]
		name, _, _ := strings.Cut(bucket, "/")
		cfg.HTTPClient = &http.Client{Transport: oneBucket{t, name}}
		synctest.Test(t, func(t *testing.T) {
			sink, err := s3sink.New(t.Context(), cfg)
			if err != nil {
				return // refused, or its keys are too long
			}
			mustTrack(t, sink, struct{}{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := sink.Flush(ctx); err != nil {
				t.Errorf("Flush: %v", err)
			}
			if err := sink.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	})
}
