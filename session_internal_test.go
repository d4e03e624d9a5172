package s3sink

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// roundTripper is a transport that is a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A session ends by the clock of this host, however far it is off, and also if
// the answer does not say when.
func TestSessionEndsByTheLocalClock(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		ahead time.Duration // of the server's clock
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
			stsRegion: "us-east-1", refreshed: func(CredentialRefresh) {},
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
