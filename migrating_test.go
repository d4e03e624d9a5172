package s3sink_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/migrate"
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	aRole = "arn:aws:iam::123456789012:role/S3Sink"
	anID  = "workspace-7"
)

// docs/migrating.md contains copies of the functions up to TestMigratingDoc.

func segmentConfig(file, workspaceID string) (s3sink.Config, error) {
	settings, err := os.ReadFile(file)
	if err != nil {
		return s3sink.Config{}, err
	}
	cfg, ignored, err := migrate.FromSegment(settings, workspaceID)
	if err != nil {
		return cfg, err // every key that is wrong, and what is wanted instead
	}
	if len(ignored) > 0 {
		log.Print("settings without effect: ", ignored)
	}
	cfg.SourceID = cmp.Or(cfg.SourceID, "checkout") // settings alone do not hold it
	return cfg, nil
}

func trial(cfg s3sink.Config) s3sink.Config {
	cfg.Bucket += "/segment-logs/test" // data at segment-logs/test/segment-logs/
	return cfg
}

func rudderStackConfig(file, workspaceID, sourceID string) (s3sink.Config, error) {
	settings, err := os.ReadFile(file)
	if err != nil {
		return s3sink.Config{}, err
	}
	cfg, ignored, err := migrate.FromRudderStack(settings, workspaceID)
	if err != nil {
		return cfg, err // every key that is wrong, and what is wanted instead
	}
	if len(ignored) > 0 {
		log.Print("settings without effect: ", ignored)
	}
	cfg.SourceID = sourceID
	return cfg, nil
}

func openEnvironment(ctx context.Context, environment, workspaceID string) (*s3sink.Sink, error) {
	cfg, err := segmentConfig(environment+".json", workspaceID) // its bucket and its role
	if err != nil {
		return nil, err
	}
	return s3sink.New(ctx, cfg)
}

// Every program in docs/migrating.md is a copy of a function in this file.
func TestMigratingDoc(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	tested, err := os.ReadFile("migrating_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) != 4 {
		t.Errorf("%d programs, want 4", len(blocks))
	}
	for _, block := range blocks {
		if program, _, _ := strings.Cut(block, "```\n"); !strings.Contains(string(tested), "\n"+program) {
			t.Errorf("docs/migrating.md has a program that is not tested:\n%s", program)
		}
	}
}

// moved returns a server in memory and a function that completes a Config for
// it. The server has the role that the older destination left, which now also
// trusts a service; the sink runs as that service.
func moved(t *testing.T, policy string) (*s3sinktest.Server, func(s3sink.Config) s3sink.Config) {
	t.Helper()
	server, there := s3sinktest.New(t, s3sinktest.InMemory())
	const service = "arn:aws:iam::210987654321:role/checkout-service"
	server.AddUser(s3sinktest.User{ARN: service, AccessKeyID: "AKIASERVICE", SecretAccessKey: "service"})
	server.AddRole(s3sinktest.Role{
		ARN: aRole, ExternalID: anID, Policy: policy,
		TrustedPrincipals: []string{"arn:aws:iam::595280932656:role/segment-s3-integration-production-access", service},
	})
	return server, func(cfg s3sink.Config) s3sink.Config {
		cfg.Endpoint, cfg.UsePathStyle, cfg.AllowPlaintext = there.Endpoint, true, true
		cfg.STSEndpoint, cfg.HTTPClient = there.STSEndpoint, there.HTTPClient
		cfg.AWS = &aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIASERVICE", "service", "")} // ambient
		return cfg
	}
}

func settingsFile(t *testing.T, settings map[string]any) string {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// segmentPolicy is the policy that the documentation of Segment gives the role.
const segmentPolicy = `{"Version":"2012-10-17","Statement":[{"Sid":"PutObjectsInBucket","Effect":"Allow",
	"Action":["s3:PutObject","s3:PutObjectAcl"],"Resource":"arn:aws:s3:::` + s3sinktest.Bucket + `/segment-logs/*"}]}`

// Given the role and policy of a Segment destination, when the steps of the
// page are followed, then the policy covers the trial folder and the real
// folder, and no other.
func TestMigrate_FromSegment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testMigrateFromSegment) // Validate waits before it says no
}

func testMigrateFromSegment(t *testing.T) {
	server, here := moved(t, segmentPolicy)
	settings := map[string]any{"region": s3sinktest.Region, "s3Bucket": s3sinktest.Bucket, "iamRoleArn": aRole}
	cfg, err := segmentConfig(settingsFile(t, settings), anID)
	if err != nil {
		t.Fatal(err)
	}
	cfg = here(cfg)
	for _, tt := range []struct {
		cfg    s3sink.Config
		folder string
	}{
		{trial(cfg), "segment-logs/test/segment-logs/"},
		{cfg, "segment-logs/"},
	} {
		before := len(server.Objects(s3sinktest.Bucket))
		sink := open(t, tt.cfg)
		if err := sink.Validate(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustTrack(t, sink, s3sink.Event{Type: s3sink.TypeTrack, UserID: "u", Event: "e"})
		mustClose(t, sink)
		var keys []string
		for _, o := range server.Objects(s3sinktest.Bucket) {
			keys = append(keys, o.Key)
		}
		all := strings.Join(keys, "\n")
		form := regexp.MustCompile(`(?m)^` + tt.folder + `checkout/\d+00000/\d{12,13}\.[0-9a-f]{12}\..*\.[0-9a-f-]{36}\.gz$`)
		if len(keys) != before+2 || !strings.Contains(all, tt.folder+"dummy-object.txt") || !form.MatchString(all) {
			t.Errorf("below %s: %q", tt.folder, keys)
		}
	}
	cfg.Bucket += "/path/prefix"
	var invalid *s3sink.ValidationError
	if err := open(t, cfg).Validate(t.Context()); !errors.As(err, &invalid) || invalid.Code != s3sink.CodePutObjectDenied {
		t.Errorf("path/prefix: %v, want it denied", err)
	}
}

// Given a disabled sink, then the way back needs no new program.
func TestMigrate_Disabled(t *testing.T) {
	t.Parallel()
	cfg, err := segmentConfig(settingsFile(t, map[string]any{
		"sourceId": "s", "enabled": false, "settings": map[string]any{"bucket": s3sinktest.Bucket, "iamRoleArn": aRole},
	}), anID)
	if err != nil || !cfg.Disabled || cfg.SourceID != "s" {
		t.Errorf("%+v, %v; want it disabled", cfg, err)
	}
}

// Given the first policy of RudderStack's page, then Validate finds the missing
// s3:PutObjectAcl if the Config needs it.
func TestMigrate_FromRudderStack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testMigrateFromRudderStack) // Validate waits before it says no
}

func testMigrateFromRudderStack(t *testing.T) {
	server, here := moved(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:PutObject","Resource":"arn:aws:s3:::`+s3sinktest.Bucket+`/*"}]}`)
	file := settingsFile(t, map[string]any{
		"bucketName": s3sinktest.Bucket, "prefix": "rudderstack", "region": s3sinktest.Region,
		"roleBasedAuth": true, "iamRoleARN": aRole, "enableSSE": true,
	})
	cfg, err := rudderStackConfig(file, anID, "source")
	if err != nil {
		t.Fatal(err)
	}
	cfg = here(cfg)
	var invalid *s3sink.ValidationError
	if err := open(t, cfg).Validate(t.Context()); !errors.As(err, &invalid) || !strings.Contains(invalid.Hint, "s3:PutObjectAcl") {
		t.Errorf("%v, want a hint at s3:PutObjectAcl", err)
	}
	cfg.ACL, cfg.Prefix = "", "s3sink-trial"
	sink := open(t, cfg)
	if err := sink.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustTrack(t, sink, struct{}{})
	mustClose(t, sink)
	for _, o := range server.Objects(s3sinktest.Bucket) {
		if !strings.HasPrefix(o.Key, "s3sink-trial/rudder-logs/") {
			t.Errorf("key %s", o.Key)
		}
	}
}

// Given two writers of one source at the same instant, then neither overwrites
// an object of the other.
func TestMigrate_OverwritesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		for range 2 {
			sink := open(t, cfg)
			mustTrack(t, sink, struct{}{})
			mustClose(t, sink)
		}
		if n := len(objects(t, server, s3sinktest.Bucket)); n != 2 { // objects checks that each object was stored once
			t.Errorf("%d objects, want 2", n)
		}
	})
}

// Given an event of 23:59 that is uploaded at 00:04, then its key has the day
// of 23:59; RudderStack would use the next day.
func TestMigrate_EventBeforeMidnight(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
		cfg.KeyFormat = s3sink.RudderStackKeys
		sink := open(t, cfg)
		time.Sleep(24*time.Hour - time.Minute)
		mustTrack(t, sink, struct{}{})
		time.Sleep(10 * time.Minute)
		all := objects(t, server, s3sinktest.Bucket)
		if len(all) != 1 || !strings.Contains(all[0].Key, "/01-01-2000/") || all[0].LastModified.Day() != 2 {
			t.Errorf("%+v, want one object of the first day", all)
		}
	})
}

// Given one Config for each environment, then each sink writes to its bucket
// with its role.
func TestMigrate_Environments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, environment := range []string{"stage", "prod"} {
		file := settingsFile(t, map[string]any{"region": "eu-west-1", "bucket": "acme-" + environment, "iamRoleArn": aRole + "-" + environment})
		if err := os.Rename(file, filepath.Join(dir, environment+".json")); err != nil {
			t.Fatal(err)
		}
		cfg, err := segmentConfig(filepath.Join(dir, environment+".json"), anID)
		if err != nil || cfg.Bucket != "acme-"+environment || cfg.Credentials.String() != "role "+aRole+"-"+environment {
			t.Errorf("%+v, %v", cfg, err)
		}
		sink, err := openEnvironment(t.Context(), filepath.Join(dir, environment), anID)
		if err != nil {
			t.Fatal(err)
		}
		mustClose(t, sink)
	}
	if _, err := openEnvironment(t.Context(), filepath.Join(dir, "none"), anID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
