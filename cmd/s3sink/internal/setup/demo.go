package setup

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
	"github.com/s3sink/s3sink/s3sinktest"
)

// The bucket, role and user of the demonstration.
const (
	demoBucket     = "acme-events"
	demoRegion     = "eu-west-1"
	demoOwner      = "123456789012"
	demoRole       = "arn:aws:iam::" + demoOwner + ":role/S3Sink"
	demoExternalID = "acme-42"
	demoCaller     = "arn:aws:iam::210987654321:user/checkout"
)

// demoTimeout limits each validation. Validate retries a refusal, because a
// change of IAM takes seconds to reach all of AWS; in the simulated accounts it
// is immediate.
const demoTimeout = 2 * time.Second

// demonstration is the result for -json.
type demonstration struct {
	Stages []stage `json:"stages"`
	Events int64   `json:"events"` // delivered at the end
}

// stage is the report of Validate after some policies were applied.
type stage struct {
	Applied []string                 `json:"applied"` // kind and owner of each policy
	Report  *s3sink.ValidationReport `json:"report"`
}

// demonstrate applies the policies of a sink in stages, from empty accounts,
// and prints the report of Validate after each.
func demonstrate(ctx context.Context, out *printer, stderr io.Writer) (ok bool, err error) {
	server := s3sinktest.NewServer(s3sinktest.InMemory())
	defer server.Close()
	accounts := newAccounts(server)
	cfg := demoConfig(accounts)
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	policies, err := cfg.Policies(policy.Input{Caller: demoCaller})
	if err != nil {
		return false, err
	}
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() { _ = sink.Close(ctx) }() // no events to deliver

	out.text("This demonstration uses an S3 and an STS inside the program, which enforce policies.\n"+
		"With -bucket the program works on your bucket; see -h.\n\n"+
		"The new bucket is %s. A service in another account runs as\n%s. It has no permissions yet.\n"+
		"To write to the bucket as a role, it needs these policies:\n\n%s", demoBucket, demoCaller, policies)
	d := &demo{accounts: accounts, sink: sink, out: out}
	out.object.Policies, out.object.Demonstration = policies, &d.demonstration
	assumePolicies, writePolicies := splitPolicies(policies)
	for _, stage := range []struct {
		title    string
		policies policy.Set
		want     s3sink.ValidationCode // "": the sink can write
	}{
		{"Validate before the policies are applied", nil, s3sink.CodeExternalIDRejected},
		{"Apply the policies that let the service assume the role, and validate", assumePolicies, s3sink.CodePutObjectDenied},
		{"Apply the policies that let the role write, and validate", writePolicies, ""},
	} {
		if err := d.stage(ctx, stage.title, stage.policies, stage.want); err != nil {
			return false, err
		}
	}
	return true, d.send(ctx)
}

// demoConfig adds the user and the bucket, and returns the Config of the sink.
func demoConfig(accounts *accounts) s3sink.Config {
	id, secret := "AKIACHECKOUT00000000", rand.Text()
	accounts.addUser(demoCaller, id, secret)
	accounts.addBucket(demoBucket, demoRegion, s3sinktest.BucketSettings{Owner: demoOwner})
	return embedded(accounts.server, s3sink.Config{
		Bucket: demoBucket, SourceID: "checkout", Region: demoRegion,
		Credentials: s3sink.AssumeRole(demoRole, demoExternalID, s3sink.Via(s3sink.AccessKeys(id, secret, ""))),
	})
}

// embedded returns cfg for a sink that sends every request to the server.
func embedded(server *s3sinktest.Server, cfg s3sink.Config) s3sink.Config {
	cfg.Endpoint, cfg.STSEndpoint, cfg.UsePathStyle = server.URL(), server.URL(), true
	cfg.AllowPlaintext = true // the connection stays in this process
	cfg.HTTPClient, cfg.AWS = server.HTTPClient(), &aws.Config{}
	return cfg
}

// splitPolicies separates the policies for assuming the role from the policies
// for writing.
func splitPolicies(policies policy.Set) (assume, write policy.Set) {
	for _, d := range policies {
		if d.Document.Statement[0].Action[0] == "sts:AssumeRole" {
			assume = append(assume, d)
		} else {
			write = append(write, d)
		}
	}
	return assume, write
}

// demo runs the stages of the demonstration.
type demo struct {
	accounts *accounts
	sink     *s3sink.Sink
	out      *printer
	demonstration
}

// stage applies policies and prints the report of Validate. It returns an error
// unless the report has the wanted code.
func (d *demo) stage(ctx context.Context, title string, policies policy.Set, want s3sink.ValidationCode) error {
	d.out.text("\n%s:\n\n", title)
	applied := []string{}
	for _, p := range policies {
		if err := d.accounts.apply(p); err != nil {
			return err
		}
		applied = append(applied, fmt.Sprintf("%s of %s", p.Kind, p.Of))
	}
	validating, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	report, err := d.sink.ValidateReport(validating)
	if err != nil {
		return err
	}
	d.Stages = append(d.Stages, stage{applied, report})
	d.out.text("%s", d.out.render(report))
	got := s3sink.ValidationCode("")
	if report.Err != nil {
		got = report.Err.Code
	}
	if got != want {
		return fmt.Errorf("the demonstration failed: Validate reports code %q, want %q", got, want)
	}
	return ctx.Err()
}

// send tracks one event, closes the sink, and prints the keys in the bucket.
func (d *demo) send(ctx context.Context) error {
	if err := d.sink.Track(map[string]any{"event": "Signed Up", "plan": "pro"}); err != nil {
		return err
	}
	if err := d.sink.Close(ctx); err != nil {
		return err
	}
	d.Events = d.sink.Stats().Delivered
	d.out.text("\nAfter one event the bucket holds:\n\n")
	for _, object := range d.accounts.server.Objects(demoBucket) {
		d.out.text("  %s\n", object.Key)
	}
	return nil
}
