package s3sinktest_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	region = "eu-west-1"
	events = "events" // a bucket in that region
	keyID  = "AKIAIOSFODNN7EXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	user   = "arn:aws:iam::111122223333:user/app"
	hop    = "arn:aws:iam::111122223333:role/hop"
	sink   = "arn:aws:iam::444455556666:role/data/sink"

	eventsKey = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// TestMain fails when the tests leave a goroutine of ours behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if stacks := leaked(); code == 0 && stacks != "" {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", stacks)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines that belong to servers and their
// clients. net/http ends a client's goroutines soon after its connection has
// been closed, not at once.
func leaked() string {
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		buf := make([]byte, 1<<20)
		var ours []string
		for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "net/http.") || strings.Contains(stack, "s3sinktest.(") {
				ours = append(ours, stack)
			}
		}
		if len(ours) == 0 || time.Now().After(deadline) {
			return strings.Join(ours, "\n\n")
		}
	}
}

// everywhere runs a test on each kind of server. A server in memory runs in a
// bubble, which ends only after every goroutine in it.
func everywhere(t *testing.T, test func(t *testing.T, srv *s3sinktest.Server)) {
	t.Parallel()
	for _, mode := range []struct {
		name     string
		inMemory bool
		opts     []s3sinktest.Option
	}{
		{"http", false, nil},
		{"https", false, []s3sinktest.Option{s3sinktest.TLS()}},
		{"memory", true, []s3sinktest.Option{s3sinktest.InMemory()}},
		{"memory-tls", true, []s3sinktest.Option{s3sinktest.InMemory(), s3sinktest.TLS()}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			run := func(t *testing.T) {
				srv := s3sinktest.NewServer(mode.opts...)
				defer srv.Close()
				furnish(srv)
				test(t, srv)
			}
			synctestOrNot(t, mode.inMemory, run)
		})
	}
}

func synctestOrNot(t *testing.T, inBubble bool, test func(*testing.T)) {
	if inBubble {
		synctest.Test(t, test)
	} else {
		test(t)
	}
}

// inBubble runs a test that needs time to pass.
func inBubble(t *testing.T, test func(t *testing.T, srv *s3sinktest.Server)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := s3sinktest.NewServer(s3sinktest.InMemory())
		defer srv.Close()
		furnish(srv)
		test(t, srv)
	})
}

func furnish(srv *s3sinktest.Server) {
	srv.CreateBucket(events, region)
	srv.AddUser(s3sinktest.User{ARN: user, AccessKeyID: keyID, SecretAccessKey: secret})
	srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}})
	srv.AddRole(s3sinktest.Role{ARN: sink, TrustedPrincipals: []string{hop}, ExternalID: "workspace/1"})
}

var userKeys aws.CredentialsProvider = credentials.NewStaticCredentialsProvider(keyID, secret, "")

func s3Client(srv *s3sinktest.Server, keys aws.CredentialsProvider) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint:               aws.String(srv.URL()),
		HTTPClient:                 srv.HTTPClient(),
		Region:                     region,
		UsePathStyle:               true,
		Credentials:                keys,
		Retryer:                    aws.NopRetryer{},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
}

func stsClient(srv *s3sinktest.Server, keys aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{
		BaseEndpoint: aws.String(srv.URL()),
		HTTPClient:   srv.HTTPClient(),
		Region:       region,
		Credentials:  keys,
		Retryer:      aws.NopRetryer{},
	})
}

func put(key, body string) *s3.PutObjectInput {
	return &s3.PutObjectInput{Bucket: aws.String(events), Key: aws.String(key), Body: strings.NewReader(body)}
}

// reply is an answer that has been read.
type reply struct {
	status int
	header http.Header
	body   []byte
	code   string // of an error

	message string
}

func (r reply) String() string { return strings.TrimSpace(fmt.Sprint(r.status, " ", r.code)) }

func send(t *testing.T, client *http.Client, req *http.Request) reply {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: reading the answer: %v", req.Method, req.URL, err)
	}
	var e struct {
		Code, Message string
		Error         struct{ Code, Message string }
	}
	if resp.StatusCode >= 300 {
		xml.NewDecoder(bytes.NewReader(body)).Decode(&e)
	}
	return reply{resp.StatusCode, resp.Header, body, e.Code + e.Error.Code, e.Message + e.Error.Message}
}

// keysOf reads the keys from an answer to AssumeRole.
func keysOf(t *testing.T, r reply) aws.Credentials {
	t.Helper()
	var out struct {
		AssumeRoleResult struct {
			Credentials struct {
				AccessKeyID     string `xml:"AccessKeyId"`
				SecretAccessKey string
				SessionToken    string
			}
		}
	}
	if err := xml.Unmarshal(r.body, &out); err != nil || r.status != 200 {
		t.Fatalf("got %v %v\n%s", r, err, r.body)
	}
	c := out.AssumeRoleResult.Credentials
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}
}
