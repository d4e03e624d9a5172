package s3sink

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/policy"
)

// roundTripper is a transport that is a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Given a host with a wrong clock, then a session ends by that clock, also if
// the answer does not say when.
func TestSession_EndsByLocalClock(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ahead time.Duration // of the server's clock, relative to ours
		named bool
	}{
		"clocks agree":    {0, true},
		"a little behind": {-20 * time.Second, true},
		"hours ahead":     {5 * time.Hour, true},
		"hours behind":    {-5 * time.Hour, true},
		"no end named":    {0, false},
	} {
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			now := time.Now().Add(tt.ahead).UTC()
			expiration := ""
			if tt.named {
				expiration = "<Expiration>" + now.Add(time.Hour).Format(time.RFC3339) + "</Expiration>"
			}
			body := fmt.Sprintf("<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA</AccessKeyId>"+
				"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>%s</Credentials></AssumeRoleResult></AssumeRoleResponse>", expiration)
			return &http.Response{
				StatusCode: http.StatusOK, Request: r,
				Header: http.Header{"Date": {now.Format(http.TimeFormat)}},
				Body:   io.NopCloser(strings.NewReader(body)),
			}, nil
		})
		r := AssumeRole("arn:aws:iam::123456789012:role/S3Sink", "", Via(AccessKeys("AKIA", "secret", "")))
		p := r.provider(awsEnvironment{
			config:    aws.Config{HTTPClient: &http.Client{Transport: transport}},
			stsRegion: "us-east-1", refreshed: func(CredentialRefresh) {}, policy: func() policy.Document { return policy.Document{} },
		})
		creds, err := p.Retrieve(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if off := time.Until(creds.Expires) - time.Hour; off.Abs() > time.Minute {
			t.Errorf("%s: the session ends %v too late", name, off)
		}
		p.(*session).Close()
	}
}

// Given a late answer about the previous session, then the current session is
// kept.
func TestSession_InvalidateKeyDropsOnlyThatSession(t *testing.T) {
	t.Parallel()
	calls := 0
	s := newSession("role", aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		calls++
		return aws.Credentials{AccessKeyID: fmt.Sprint("ASIA", calls), SecretAccessKey: "s", CanExpire: true, Expires: time.Now().Add(time.Hour)}, nil
	}), nil, func(CredentialRefresh) {})
	defer s.Close()
	for _, step := range []struct{ drop, want string }{{"", "ASIA1"}, {"ASIA0", "ASIA1"}, {"ASIA1", "ASIA2"}, {"ASIA1", "ASIA2"}} {
		s.InvalidateKey(step.drop)
		creds, err := s.Retrieve(t.Context())
		if err != nil || creds.AccessKeyID != step.want {
			t.Errorf("after %q was dropped: %s, %v; want %s", step.drop, creds.AccessKeyID, err, step.want)
		}
	}
}

// Given a refresh that began with an old policy, when the session is
// invalidated, then the result of that refresh is discarded.
func TestSession_InvalidateDuringRefresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		s := newSession("role", aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			calls++
			id := fmt.Sprint("ASIA", calls)
			time.Sleep(time.Second)
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: "s", CanExpire: true, Expires: time.Now().Add(time.Hour)}, nil
		}), nil, func(CredentialRefresh) {})
		defer s.Close()
		time.AfterFunc(time.Second/2, s.Invalidate)
		creds, err := s.Retrieve(t.Context())
		if err != nil || creds.AccessKeyID != "ASIA2" {
			t.Errorf("%s, %v; want ASIA2", creds.AccessKeyID, err)
		}
	})
}
