package migrate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/migrate"
	"github.com/s3sink/s3sink/s3sinktest"
)

const (
	aRole = "arn:aws:iam::123456789012:role/S3Sink"
	anID  = "workspace-7"
)

// bring is the type of FromSegment and FromRudderStack.
type bring func([]byte, string, ...s3sink.RoleOption) (s3sink.Config, []string, error)

// same reports whether two Configs are equal, secrets included.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }

// Given settings of Segment, then FromSegment returns their Config and the names of
// ignored settings.
func TestFromSegment_Settings(t *testing.T) {
	t.Parallel()
	want := s3sink.Config{
		Bucket: "acme-events/path/prefix", Region: "eu-west-1", KeyFormat: s3sink.SegmentKeys,
		Credentials: s3sink.AssumeRole(aRole, anID),
	}
	with := func(change func(*s3sink.Config)) s3sink.Config {
		cfg := want
		change(&cfg)
		return cfg
	}
	fromSource := with(func(c *s3sink.Config) { c.SourceID = "qv5iYYMxd94DahFpRzm58y" })
	const documented = `{"region":"eu-west-1","s3Bucket":"acme-events/path/prefix","iamRoleArn":"` + aRole + `"}`
	const catalog = `{"awsRegion":"eu-west-1","bucket":"acme-events/path/prefix","iamRoleArn":"` + aRole + `"}`
	for name, tt := range map[string]struct {
		settings string
		want     s3sink.Config
		ignored  []string
	}{
		"the page's names":      {documented, want, nil},
		"the catalogue's names": {catalog, want, nil},
		"both, and the same":    {documented[:len(documented)-1] + "," + catalog[1:], want, nil},
		"another case":          {strings.ReplaceAll(documented, "iamRoleArn", "IAMRoleARN"), want, nil},
		"an empty alias":        {`{"region":"",` + catalog[1:], want, nil},
		"null":                  {`{"region":null,"enabled":null,` + catalog[1:], want, nil},
		"enabled":               {`{"enabled":true,` + catalog[1:], want, nil},
		"not enabled":           {`{"enabled":false,` + catalog[1:], with(func(c *s3sink.Config) { c.Disabled = true }), nil},
		"no region":             {`{"bucket":"acme-events/path/prefix","iamRoleArn":"` + aRole + `"}`, with(func(c *s3sink.Config) { c.Region = "" }), nil},
		"what creates one": {`{"sourceId":"qv5iYYMxd94DahFpRzm58y","metadataId":"60be92c8dabdd561bf6c9130","name":"AWS S3","settings":` + documented + `}`,
			fromSource, nil},
		"what the API returns": {`{"data":{"destination":{"id":"5f","name":"AWS S3","enabled":true,"metadata":{"id":"60be92c8dabdd561bf6c9130","slug":"aws-s3"},` +
			`"sourceId":"qv5iYYMxd94DahFpRzm58y","settings":` + catalog + `}}}`, fromSource, nil},
		"the older destination": {`{"metadataId":"54f418c3db31d978f14aa925","settings":{"bucket":"acme-events"}}`,
			s3sink.Config{Bucket: "acme-events", KeyFormat: s3sink.SegmentKeys}, nil},
		"unknown keys": {`{"colour":"red","settings":{"shade":1,"empty":[ ],` + documented[1:] + `,"filters":[{}]}`, want, []string{"colour", "filters", "settings.shade"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ignored, err := migrate.FromSegment([]byte(tt.settings), anID)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, tt.want) || !slices.Equal(ignored, tt.ignored) {
				t.Errorf("%+v and ignored %q, want\n%+v and %q", got, ignored, tt.want, tt.ignored)
			}
		})
	}
}

// Given settings of RudderStack, then FromRudderStack returns their Config and the
// names of ignored settings.
func TestFromRudderStack_Settings(t *testing.T) {
	t.Parallel()
	role := func(opts ...s3sink.RoleOption) s3sink.Credentials { return s3sink.AssumeRole(aRole, anID, opts...) }
	keys := s3sink.AccessKeys("AKIA", "secret", "")
	const both = `"iamRoleARN":"` + aRole + `","accessKeyID":"AKIA","accessKey":"secret"`
	for name, tt := range map[string]struct {
		settings string // settings after the bucket name
		change   func(*s3sink.Config)
		ignored  []string
	}{
		"only the bucket": {``, nil, nil},
		"everything": {`"prefix":"path/prefix","region":"eu-west-1","enableSSE":true`, func(c *s3sink.Config) {
			c.Prefix, c.Region, c.Encryption = "path/prefix/", "eu-west-1", s3sink.SSES3()
		}, nil},
		"another case": {`"Prefix":"p","REGION":"eu-west-1"`, func(c *s3sink.Config) { c.Prefix, c.Region = "p/", "eu-west-1" }, nil},

		// facts of awsutil.go: the identity that writes
		"a role":                             {`"iamRoleARN":"` + aRole + `"`, func(c *s3sink.Config) { c.Credentials = role() }, nil},
		"a role, and the flag":               {`"roleBasedAuth":true,"iamRoleARN":"` + aRole + `"`, func(c *s3sink.Config) { c.Credentials = role() }, nil},
		"keys":                               {`"accessKeyID":"AKIA","accessKey":"secret"`, func(c *s3sink.Config) { c.Credentials = keys }, nil},
		"keys, by the other name":            {`"accessKeyID":"AKIA","secretAccessKey":"secret","sessionToken":"t"`, func(c *s3sink.Config) { c.Credentials = s3sink.AccessKeys("AKIA", "secret", "t") }, nil},
		"keys, and the flag":                 {`"roleBasedAuth":false,"accessKeyID":"AKIA","accessKey":"secret"`, func(c *s3sink.Config) { c.Credentials = keys }, nil},
		"keys, though the flag says role":    {`"roleBasedAuth":true,"iamRoleARN":"","accessKeyID":"AKIA","accessKey":"secret"`, func(c *s3sink.Config) { c.Credentials = keys }, nil},
		"both: the role":                     {both, func(c *s3sink.Config) { c.Credentials = role() }, []string{"accessKeyID", "accessKey"}},
		"both, and the flag: the role":       {`"roleBasedAuth":true,` + both, func(c *s3sink.Config) { c.Credentials = role() }, []string{"accessKeyID", "accessKey"}},
		"both, and the flag denied: keys":    {`"roleBasedAuth":false,` + both, func(c *s3sink.Config) { c.Credentials = keys }, []string{"iamRoleARN"}},
		"both, and the flag misspelt":        {`"rolebasedauth":false,` + both, func(c *s3sink.Config) { c.Credentials = role() }, []string{"rolebasedauth", "accessKeyID", "accessKey"}},
		"the flag denied, and no keys":       {`"roleBasedAuth":false,"iamRoleARN":"` + aRole + `"`, nil, []string{"iamRoleARN"}},
		"half a key":                         {`"accessKeyID":"AKIA"`, nil, []string{"accessKeyID"}},
		"the other half, and a token":        {`"accessKey":"secret","sessionToken":"t"`, nil, []string{"accessKey", "sessionToken"}},
		"the page's flag, and nothing to it": {`"roleBasedAuth":true`, nil, nil},
		"a name for sessions":                {`"roleSessionName":"events","iamRoleARN":"` + aRole + `"`, func(c *s3sink.Config) { c.Credentials = role(s3sink.WithSessionName("events")) }, nil},

		// facts of s3manager.go: the normalized prefix
		"a prefix with slashes": {`"prefix":"/a//b/"`, func(c *s3sink.Config) { c.Prefix = "a/b/" }, nil},
		"a prefix with spaces":  {`"prefix":" / a /b "`, func(c *s3sink.Config) { c.Prefix = " a /b /" }, nil},
		"a prefix of nothing":   {`"prefix":"/"`, nil, nil},

		"another store": {`"endpoint":"https://s3.example.com","s3ForcePathStyle":true`, func(c *s3sink.Config) {
			c.Endpoint, c.UsePathStyle = "https://s3.example.com", true
		}, nil},
		"another store, in the clear": {`"endPoint":"http://minio:9000","disableSSL":true`, func(c *s3sink.Config) {
			c.Endpoint, c.AllowPlaintext = "http://minio:9000", true
		}, nil},
		"a host alone":               {`"endpoint":"minio:9000"`, func(c *s3sink.Config) { c.Endpoint = "https://minio:9000" }, nil},
		"a host alone, in the clear": {`"endpoint":"minio:9000","disableSSL":true`, func(c *s3sink.Config) { c.Endpoint, c.AllowPlaintext = "http://minio:9000", true }, nil},
		"this host, in the clear":    {`"endpoint":"http://localhost:9000"`, func(c *s3sink.Config) { c.Endpoint = "http://localhost:9000" }, nil},
		"TLS, said explicitly":       {`"disableSSL":false`, nil, nil},

		"what is for other things": {`"oneTrustCookieCategories":[],"consentManagement":{"web":[{"provider":"oneTrust"}]},"timeout":120,"useRudderStorage":false`, nil,
			[]string{"consentManagement", "timeout", "useRudderStorage"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := s3sink.Config{
				Bucket: "acme-events", KeyFormat: s3sink.RudderStackKeys,
				ACL: "bucket-owner-full-control", Credentials: s3sink.Ambient(),
			}
			if tt.change != nil {
				tt.change(&want)
			}
			settings := strings.Replace(`{"bucketName":"acme-events/",`+tt.settings+`}`, ",}", "}", 1)
			got, ignored, err := migrate.FromRudderStack([]byte(settings), anID)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, want) || !slices.Equal(ignored, tt.ignored) {
				t.Errorf("%+v and ignored %q, want\n%+v and %q", got, ignored, want, tt.ignored)
			}
		})
	}
}

// Given a role, then its external id is the argument, or else the id of the workspace in
// the settings.
func TestFromRudderStack_ExternalID(t *testing.T) {
	t.Parallel()
	const config = `{"bucketName":"acme-events","iamRoleARN":"` + aRole + `"`
	for settings, ignored := range map[string][]string{
		config + `,"externalID":"workspace-7"}`:                                                                 nil,
		config + `,"workspaceID":"workspace-7"}`:                                                                nil,
		config + `,"workspaceId":"workspace-7","externalId":"workspace-7"}`:                                     nil,
		`{"id":"d","workspaceId":"workspace-7","config":` + config + `}}`:                                       nil,
		`{"workspaceId":"workspace-7","enabled":true,"type":"S3","config":` + config + `,"externalID":"x"}}`:    {"config.externalID"},
		`{"WorkspaceID":"workspace-7","DestinationDefinition":{"Name":"S3","ID":"1"},"Config":` + config + `}}`: nil,
	} {
		got, unused, err := migrate.FromRudderStack([]byte(settings), "")
		if err != nil {
			t.Errorf("%s: %v", settings, err)
			continue
		}
		if want := s3sink.AssumeRole(aRole, anID); !same(got.Credentials, want) || !slices.Equal(unused, ignored) {
			t.Errorf("%s: %#v, ignored %q", settings, got.Credentials, unused)
		}
	}
	got, unused, err := migrate.FromRudderStack([]byte(config+`,"externalID":"old"}`), "new")
	if err != nil || !same(got.Credentials, s3sink.AssumeRole(aRole, "new")) || !slices.Equal(unused, []string{"externalID"}) {
		t.Errorf("%#v, ignored %q, %v; want the id that was given", got.Credentials, unused, err)
	}
	got, _, err = migrate.FromRudderStack([]byte(`{"enabled":false,"config":{"bucketName":"acme-events"}}`), "")
	if err != nil || !got.Disabled {
		t.Errorf("%+v, %v; want it disabled", got, err)
	}
}

// Given wrong settings, then the error names every wrong key and the form that its value
// must have, and holds no value.
func TestSettingsError_Keys(t *testing.T) {
	t.Parallel()
	const canary = "hunter2"
	segment, rudderstack := bring(migrate.FromSegment), bring(migrate.FromRudderStack)
	for _, tt := range []struct {
		from     bring
		id       string
		settings string
		want     []string // key: text of the error
	}{
		{segment, "", ``, []string{": JSON; it is broken at byte 0"}},
		{segment, "", `{"bucket":"hunter2`, []string{": JSON; it is broken at byte 18"}},
		{segment, "", `{"bucket":"acme-events"} hunter2`, []string{": JSON; it is broken at byte 26"}},
		{segment, "", `["hunter2"]`, []string{": a JSON object"}},
		{segment, "", `null`, []string{": a JSON object"}},
		{segment, "", `{}`, []string{"s3Bucket: the name of a bucket"}},
		{segment, "", `{"settings":{}}`, []string{"settings.s3Bucket: the name of a bucket"}},
		{segment, "", `{"settings":"hunter2"}`, []string{"settings: an object", "s3Bucket: the name of a bucket"}},
		{segment, "", `{"bucket":"s3://hunter2"}`, []string{"bucket: the name of a bucket"}},
		{segment, "", `{"bucket":"acme-events/../hunter2"}`, []string{"bucket: folders"}},
		{segment, "", `{"bucket":"acme-events/` + strings.Repeat(canary, 150) + `"}`, []string{"bucket: keys of at most 1024 bytes"}},
		{segment, anID, `{"iamRoleArn":"` + aRole + `","bucket":"acme-events/` + strings.Repeat("*", 600) + `"}`, []string{"bucket: one that fits a session policy"}},
		{segment, "", `{"bucket":7,"region":true,"enabled":"false"}`, []string{"enabled: true or false, without quotes", "bucket: a string", "region: a string"}},
		{segment, "", `{"bucket":"acme-events","region":"eu-west-1","awsRegion":"us-east-1"}`, []string{"region and awsRegion: one of them"}},
		{segment, "", `{"bucket":"acme-events","region":"eu-west-1","region":"us-east-1"}`, []string{"region: it once"}},
		{segment, "", `{"bucket":"acme-events","enabled":true,"Enabled":false}`, []string{"enabled and Enabled: one of them"}},
		{segment, "", `{"settings":{},"Settings":{}}`, []string{"settings and Settings: one of them", "s3Bucket: the name"}},
		{segment, "", `{"bucket":"acme-events","region":"hunter2!"}`, []string{"region: a region such as"}},
		{segment, "", `{"bucket":"acme-events","iamRoleArn":"` + aRole + `"}`, []string{"iamRoleArn: its external id in the call"}},
		{segment, anID, `{"bucket":"acme-events","iamRoleArn":"hunter2"}`, []string{"iamRoleArn: arn:aws:iam::ACCOUNT_ID:role/ROLE_NAME"}},
		{segment, anID, `{"metadataId":"60be92c8dabdd561bf6c9130","settings":{"bucket":"acme-events"}}`, []string{"settings.iamRoleArn: the ARN of the role"}},
		{segment, anID, `{"metadata":{"id":"hunter2"},"settings":{"bucket":"acme-events"}}`, []string{"metadata: a destination of AWS S3 (60be92c8dabdd561bf6c9130)"}},
		{segment, anID, `{"sourceId":"` + strings.Repeat("x", 257) + `","settings":{"bucket":"acme-events"}}`, []string{"sourceId: 1 to 256 bytes"}},

		{rudderstack, "", `{}`, []string{"bucketName: the name of a bucket"}},
		{rudderstack, "", `{"config":{"Prefix":"../hunter2"}}`, []string{"config.bucketName: the name", "config.Prefix: folders"}},
		{rudderstack, "", `{"bucketName":"acme-events","roleBasedAuth":"false","enableSSE":1}`, []string{"enableSSE: true or false", "roleBasedAuth: true or false, without quotes"}},
		{rudderstack, "", `{"bucketName":"env.hunter2","accessKey":"{{ message.hunter2 || \"hunter2\" }}"}`, []string{"bucketName: the value itself", "accessKey: the value itself"}},
		{rudderstack, "", `{"bucketName":"acme-events","accessKey":"hunter2","secretAccessKey":"hunter22"}`, []string{"accessKey and secretAccessKey: one of them"}},
		{rudderstack, "", `{"bucketName":"acme-events","accessKey":["hunter2"]}`, []string{"accessKey: a string"}},
		{rudderstack, "", `{"bucketName":"acme-events","prefix":"a","Prefix":"b"}`, []string{"prefix and Prefix: one of them"}},
		{rudderstack, "", `{"bucketName":"acme-events","iamRoleARN":"` + aRole + `"}`, []string{"iamRoleARN: its external id in the call or as workspaceID"}},
		{rudderstack, "", `{"bucketName":"acme-events","iamRoleARN":"` + aRole + `","externalID":"a-1","workspaceID":"a-2"}`, []string{"externalID and workspaceID: one of them"}},
		{rudderstack, "", `{"bucketName":"acme-events","iamRoleARN":"` + aRole + `","externalID":"hunter2?"}`, []string{"externalID: 2 to 1224 letters"}},
		{rudderstack, "", `{"workspaceId":"hunter2?","config":{"bucketName":"acme-events","iamRoleARN":"` + aRole + `"}}`, []string{"workspaceId: 2 to 1224 letters"}},
		{rudderstack, anID, `{"bucketName":"acme-events","iamRoleARN":"` + aRole + `","roleSessionName":"hunter2?"}`, []string{"roleSessionName: 2 to 64 letters"}},
		{rudderstack, "", `{"type":"S3_DATALAKE","config":{"bucketName":"acme-events"}}`, []string{"type: a destination of type S3"}},
		{rudderstack, "", `{"bucketName":"acme-events","disableSSL":true}`, []string{"disableSSL: an endpoint beside it"}},
		{rudderstack, "", `{"bucketName":"acme-events","endpoint":"https://minio","disableSSL":true}`, []string{"endpoint: http:// with disableSSL"}},
		{rudderstack, "", `{"bucketName":"acme-events","endpoint":"http://minio:9000"}`, []string{"endpoint: https://, or disableSSL"}},
		{rudderstack, "", `{"bucketName":"acme-events","endpoint":"https://me:hunter2@minio"}`, []string{"endpoint: a URL without user, password or query"}},
		{rudderstack, "", `{"bucketName":"acme-events","endpoint":"https://%zz"}`, []string{"endpoint: a URL such as"}},
	} {
		cfg, ignored, err := tt.from([]byte(tt.settings), tt.id)
		if err == nil || !same(cfg, s3sink.Config{}) || ignored != nil {
			t.Errorf("%s: %+v, %q, %v; want an error alone", tt.settings, cfg, ignored, err)
			continue
		}
		var got []string
		for _, e := range eachError(err) {
			var wrong *migrate.SettingsError
			if !errors.As(e, &wrong) || !strings.Contains(e.Error(), wrong.Key) || !strings.Contains(e.Error(), wrong.Want) {
				t.Errorf("%s: %v is no SettingsError", tt.settings, e)
				continue
			}
			got = append(got, wrong.Key+": "+wrong.Want)
		}
		if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
			t.Errorf("%s:\n%q, want\n%q", tt.settings, got, tt.want)
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("a value is printed: %v", err)
		}
	}
}

func eachError(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// Given wrong arguments, then the error is a ConfigError and names no key of the settings.
func TestFromSegment_WrongArguments(t *testing.T) {
	t.Parallel()
	const settings = `{"bucket":"acme-events","iamRoleArn":"` + aRole + `"}`
	_, _, err := migrate.FromSegment([]byte(settings), "?", s3sink.WithSessionName("!"))
	var fields []string
	for _, e := range eachError(err) {
		var wrong *s3sink.ConfigError
		if errors.As(e, &wrong) {
			fields = append(fields, wrong.Field)
		}
	}
	if want := []string{"Credentials.ExternalID", "Credentials.SessionName"}; !slices.Equal(fields, want) {
		t.Errorf("%v: fields %q, want %q", err, fields, want)
	}
}

// Given settings of RudderStack, when a sink with their Config delivers, then keys, ACL and
// encryption are RudderStack's.
func TestFromRudderStack_SinkInUse(t *testing.T) {
	t.Parallel()
	server, service := s3sinktest.New(t)
	server.AddRole(s3sinktest.Role{ARN: aRole, TrustedPrincipals: []string{"*"}, ExternalID: anID, Actions: []string{"s3:PutObject", "s3:PutObjectAcl"}})
	settings, err := json.Marshal(map[string]any{
		"bucketName": s3sinktest.Bucket, "prefix": "rudderstack", "region": s3sinktest.Region, "enableSSE": true,
		"endpoint": server.URL(), "s3ForcePathStyle": true, "disableSSL": true,
		"roleBasedAuth": true, "iamRoleARN": aRole, "workspaceID": anID,
	})
	if err != nil {
		t.Fatal(err)
	}
	server.AddUser(s3sinktest.User{AccessKeyID: "AKIASERVICE", SecretAccessKey: "service"})
	cfg, ignored, err := migrate.FromRudderStack(settings, "", s3sink.Via(s3sink.AccessKeys("AKIASERVICE", "service", "")))
	if err != nil || ignored != nil {
		t.Fatal(err, ignored)
	}
	cfg.SourceID = "1uXKxCrhN2WGAt2fojy6k2fqDSb"
	cfg.STSEndpoint, cfg.HTTPClient, cfg.AWS = service.STSEndpoint, service.HTTPClient, service.AWS
	sink, err := s3sink.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close(context.Background())
	if err := sink.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sink.Track(struct{}{}); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^rudderstack/rudder-logs/(dummy-object\.txt|1uXKxCrhN2WGAt2fojy6k2fqDSb/\d\d-\d\d-\d{4}/\d{10}\.1uXKxCrhN2WGAt2fojy6k2fqDSb\.[0-9a-f-]{36}\.json\.gz)$`)
	for _, o := range server.Objects(s3sinktest.Bucket) {
		if !form.MatchString(o.Key) || o.ACL != "bucket-owner-full-control" || o.SSE != "AES256" {
			t.Errorf("%s with ACL %s and encryption %s", o.Key, o.ACL, o.SSE)
		}
	}
	if n := len(server.Objects(s3sinktest.Bucket)); n != 2 {
		t.Errorf("%d objects, want the dummy and one of events", n)
	}
}

func ExampleFromSegment() {
	ctx := context.Background()
	settings := []byte(`{
		"sourceId": "qv5iYYMxd94DahFpRzm58y",
		"metadataId": "60be92c8dabdd561bf6c9130",
		"name": "AWS S3",
		"enabled": true,
		"settings": {
			"region": "eu-west-1",
			"s3Bucket": "acme-events",
			"iamRoleArn": "arn:aws:iam::123456789012:role/S3Sink",
			"colour": "red"
		}
	}`)
	cfg, ignored, err := migrate.FromSegment(settings, "your-workspace-id")
	if err != nil {
		log.Fatal(err) // names every wrong key
	}
	fmt.Println("no effect:", ignored)

	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.Bucket, cfg.SourceID, cfg.Credentials)
	if err := sink.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// no effect: [settings.colour]
	// acme-events qv5iYYMxd94DahFpRzm58y role arn:aws:iam::123456789012:role/S3Sink
}

func ExampleFromRudderStack() {
	settings := []byte(`{
		"bucketName": "acme-events",
		"roleBasedAuth": false,
		"iamRoleARN": "arn:aws:iam::123456789012:role/S3Sink",
		"accessKeyID": "AKIAIOSFODNN7EXAMPLE",
		"accessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	}`)
	cfg, ignored, err := migrate.FromRudderStack(settings, "your-workspace-id")
	fmt.Println(err, ignored)
	cfg.SourceID = "1uXKxCrhN2WGAt2fojy6k2fqDSb" // id of the RudderStack source
	fmt.Println(cfg.Credentials)

	_, _, err = migrate.FromRudderStack([]byte(`{"bucketName": "env.BUCKET", "enableSSE": "true"}`), "")
	fmt.Println(err)
	// Output:
	// <nil> [iamRoleARN]
	// access key AKIAIOSFODNN7EXAMPLE
	// s3sink: settings: bucketName: want the value itself: env.NAME and {{…}} are filled in by RudderStack's server
	// s3sink: settings: enableSSE: want true or false, without quotes
}

var secretValues = regexp.MustCompile(`"(accessKey|secretAccessKey|sessionToken)":"[^"]*`)

// Given any settings, then there is no panic and no secret in an error, and New accepts
// every Config that is returned.
func FuzzSettings(f *testing.F) {
	const canary = "CANARY-of-a-secret"
	for _, seed := range []string{
		`{"bucket":"acme-events","iamRoleArn":"` + aRole + `","region":"eu-west-1"}`,
		`{"data":{"destination":{"enabled":false,"metadata":{"id":"60be92c8dabdd561bf6c9130"},"settings":{"s3Bucket":"b-1"}}}}`,
		`{"bucketName":"acme-events","accessKeyID":"AKIA","accessKey":"` + canary + `","sessionToken":"` + canary + `"}`,
		`{"bucketName":"acme-events","endpoint":"http://minio:9000","disableSSL":true,"prefix":" /a/../b","enableSSE":true}`,
		`{"config":{"bucketName":"x","externalID":"?","iamRoleARN":"` + aRole + `"},"type":"S3"}`,
		`{"accessKey":"` + canary, `{"a":1}{"b":2}`, `[[[`, `{"prefix":"\ud800","Prefix":"env.X","region":{}}`, "\xff", "",
	} {
		f.Add([]byte(seed), "workspace-7")
		f.Add([]byte(seed), "")
	}
	f.Fuzz(func(t *testing.T, settings []byte, id string) {
		for name, from := range map[string]bring{"Segment": migrate.FromSegment, "RudderStack": migrate.FromRudderStack} {
			before := string(settings)
			cfg, ignored, err := from(settings, id)
			if string(settings) != before {
				t.Fatalf("%s: the settings were changed", name)
			}
			told := fmt.Sprintf("%v %+v %#v %+v %#v", err, err, err, cfg, cfg)
			if strings.Contains(told, canary) && !bytes.Contains(secretValues.ReplaceAll(settings, nil), []byte(canary)) {
				t.Fatalf("%s: a secret is told: %s", name, told)
			}
			if err != nil {
				if ignored != nil || !same(cfg, s3sink.Config{}) {
					t.Fatalf("%s: something beside the error %v", name, err)
				}
				continue
			}
			if cfg.SourceID == "" {
				cfg.SourceID = "any"
			}
			cfg.AWS, cfg.Logger = &aws.Config{}, slog.New(slog.DiscardHandler)
			sink, err := s3sink.New(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%s: New refuses what was brought: %v", name, err)
			}
			if err := sink.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
