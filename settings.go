package s3sink

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// SettingsError is a key of settings that [FromSegmentSettings] or
// [FromRudderStackSettings] cannot use. It holds no value: that may be a secret.
type SettingsError struct {
	Key  string // as in the settings, for example "config.iamRoleARN"; "" for all of them
	Want string // what is wanted instead
}

func (e *SettingsError) Error() string {
	if e.Key == "" {
		return "s3sink: settings: want " + e.Want
	}
	return fmt.Sprintf("s3sink: settings: %s: want %s", e.Key, e.Want)
}

// Ids of Segment's catalogue, from the page "AWS S3 with IAM Role Support
// Destination".
const (
	segmentAWSS3    = "60be92c8dabdd561bf6c9130"
	segmentAmazonS3 = "54f418c3db31d978f14aa925" // the older one
)

// FromSegmentSettings returns the Config of a sink that writes where Segment's
// S3 destination with these settings does, at the same keys ([SegmentKeys]).
// settings is JSON: the destination's settings, or the whole destination as
// Segment's Public API takes and returns it.
//
//	s3Bucket, bucket    Bucket, with a path behind the name if there is one
//	region, awsRegion   Region
//	iamRoleArn          Credentials: AssumeRole(iamRoleArn, externalID, opts...)
//	enabled             Disabled, if it is false
//	sourceId            SourceID; without it, set SourceID yourself
//	metadataId          checked to be AWS S3 or the older Amazon S3
//
// Segment's documentation spells the first two in both ways. externalID is the
// id of the Segment workspace, which the role's trust policy demands
// (sts:ExternalId) and settings do not hold; a role without it is refused. The
// role must also trust whoever assumes it now: the ambient identity, or the one
// of [Via]. Without a role, as in settings of the older destination,
// Credentials are [Ambient].
//
// The case of keys does not matter. ignored names those that had no
// effect on the Config, in their order, unless they are empty or only describe
// the destination (id, name, metadata): print it. The error joins a [*SettingsError]
// for every key that is wrong, also for values that New would refuse; the Config
// is then zero. Nothing is read but the arguments, and nothing is kept of
// settings but the values in the Config, which can be changed before New gets it.
func FromSegmentSettings(settings []byte, externalID string, opts ...RoleOption) (cfg Config, ignored []string, err error) {
	r, err := readSettings(settings)
	if err != nil {
		return Config{}, nil, err
	}
	dest := r.root
	for _, answer := range []string{"data", "destination"} { // of the Public API
		if inner := dest.object(answer); inner != nil {
			dest = inner
		}
	}
	dest.skip("id", "destinationId", "name")
	cfg = Config{
		KeyFormat: SegmentKeys,
		SourceID:  dest.text("sourceId"),
		Disabled:  dest.off("enabled"),
	}
	kind := dest.text("metadataId")
	if metadata := dest.object("metadata"); metadata != nil {
		kind = cmp.Or(kind, metadata.text("id"))
		metadata.skipAll()
	}
	if kind != "" && kind != segmentAWSS3 && kind != segmentAmazonS3 {
		dest.wrong("a destination of AWS S3 ("+segmentAWSS3+") or Amazon S3 ("+segmentAmazonS3+")", "metadataId", "metadata")
	}
	set := dest
	if inner := dest.object("settings"); inner != nil {
		set = inner
	}
	cfg.Bucket = set.text("s3Bucket", "bucket")
	cfg.Region = set.text("region", "awsRegion")
	role := set.text("iamRoleArn")
	switch {
	case role != "" && externalID == "":
		set.wrong("its external id in the call: the id of the Segment workspace, which is sts:ExternalId in the role's trust policy", "iamRoleArn")
	case role != "":
		cfg.Credentials = AssumeRole(role, externalID, opts...)
	case kind == segmentAWSS3:
		set.wrong("the ARN of the role: AWS S3 does not work without", "iamRoleArn")
	}
	r.check(&cfg, map[string]string{
		"Bucket":              set.name("s3Bucket", "bucket"),
		"Prefix":              set.name("s3Bucket", "bucket"),
		"KeyFormat":           set.name("s3Bucket", "bucket"),
		"Region":              set.name("region", "awsRegion"),
		"SourceID":            dest.name("sourceId"),
		"Credentials.RoleARN": set.name("iamRoleArn"),
	})
	return r.result(cfg)
}

// FromRudderStackSettings returns the Config of a sink that writes where
// RudderStack's S3 destination with these settings does, as the same identity
// and with the same headers, at keys of the same form: [RudderStackKeys], or set
// KeyFormat to [RudderStackListedKeys] if days in the bucket begin with the year.
// settings is JSON: the destination's config, or the whole destination.
//
//	bucketName                   Bucket
//	prefix                       Prefix, cleaned as RudderStack does
//	region                       Region
//	endpoint                     Endpoint; without a scheme it gets one
//	s3ForcePathStyle             UsePathStyle
//	disableSSL                   AllowPlaintext, for an http endpoint
//	enableSSE                    Encryption: SSES3()
//	iamRoleARN, roleBasedAuth    Credentials: AssumeRole
//	externalID, workspaceID      the role's external id, unless externalID is given
//	roleSessionName              WithSessionName
//	accessKeyID, accessKey or secretAccessKey, sessionToken
//	                             Credentials: AccessKeys
//	enabled                      Disabled, if it is false
//
// Credentials are chosen as RudderStack chooses: the role, if there is one and
// roleBasedAuth is not false; else the access key, if both its parts are there;
// else [Ambient], which reads the copy-user variables first. The role's external
// id is the id of the RudderStack workspace, and a role without it is refused, as
// there. opts are those of [AssumeRole].
//
// ACL is bucket-owner-full-control, which RudderStack sends always: where the
// writer is not of the bucket's account and the bucket still has ACLs, its owner
// could not read objects without it. It may take s3:PutObjectAcl, which the first
// of RudderStack's documented policies lacks: [Sink.Validate] tells, and without
// need for it, set ACL to "".
//
// The case of keys does not matter, but for roleBasedAuth, which RudderStack knows
// in this spelling alone. Values that RudderStack's server fills in (env.NAME
// and {{…}}) are errors. ignored and the error are as in [FromSegmentSettings];
// ignored also names credentials that were not chosen. Set SourceID yourself: it
// is the id of the RudderStack source, whose destinations do not hold it.
func FromRudderStackSettings(settings []byte, externalID string, opts ...RoleOption) (cfg Config, ignored []string, err error) {
	r, err := readSettings(settings)
	if err != nil {
		return Config{}, nil, err
	}
	r.filledIn = true
	dest := r.root
	set := dest
	if inner := dest.object("config"); inner != nil {
		set = inner
		dest.skip("id", "name", "createdAt", "updatedAt", "revisionId")
	}
	kind := dest.text("type")
	if definition := dest.object("destinationDefinition"); definition != nil {
		kind = cmp.Or(kind, definition.text("name"))
		definition.skipAll()
	}
	if kind != "" && kind != "S3" {
		dest.wrong("a destination of type S3", "type", "destinationDefinition")
	}
	cfg = Config{
		KeyFormat:    RudderStackKeys,
		Disabled:     dest.off("enabled"),
		Bucket:       strings.TrimRight(set.text("bucketName"), "/"),
		Prefix:       rudderPrefix(set.text("prefix")),
		Region:       set.text("region"),
		UsePathStyle: set.on("s3ForcePathStyle"),
		ACL:          "bucket-owner-full-control",
	}
	if set.on("enableSSE") {
		cfg.Encryption = SSES3()
	}
	keys := map[string]string{
		"Bucket":              set.name("bucketName"),
		"Prefix":              set.name("prefix"),
		"KeyFormat":           set.name("prefix"),
		"Region":              set.name("region"),
		"Endpoint":            set.name("endpoint"),
		"Credentials.RoleARN": set.name("iamRoleARN"),
	}
	if set != dest {
		// RudderStack's server writes it over what the config has.
		if workspace := dest.text("workspaceId"); externalID == "" {
			externalID, keys["Credentials.ExternalID"] = workspace, dest.name("workspaceId")
		}
	}
	set.rudderEndpoint(&cfg)
	set.rudderCredentials(&cfg, externalID, opts, keys)
	r.check(&cfg, keys)
	return r.result(cfg)
}

// rudderPrefix is what comes before rudder-logs in RudderStack's keys:
// https://github.com/rudderlabs/rudder-go-kit/blob/main/filemanager/s3manager.go
func rudderPrefix(prefix string) string {
	sanitize := func(key string) string { return strings.TrimLeft(strings.TrimSpace(key), "/") }
	if strings.HasPrefix(prefix, "/") {
		prefix = sanitize(prefix)
	}
	const folder = "rudder-logs"
	return strings.TrimSuffix(sanitize(path.Join(prefix, folder)), folder)
}

// rudderEndpoint reads where the store is. Older settings name a host alone.
func (s *settings) rudderEndpoint(cfg *Config) {
	plain, endpoint := s.on("disableSSL"), s.text("endpoint")
	if endpoint != "" && !strings.Contains(endpoint, "://") {
		scheme := map[bool]string{false: "https://", true: "http://"}[plain]
		endpoint = scheme + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case endpoint == "" && plain:
		s.wrong("an endpoint beside it, or false: events go to AWS over TLS alone", "disableSSL")
	case err != nil: // check says so
	case plain && u.Scheme == "https": // RudderStack sends in the clear all the same
		s.wrong("http:// with disableSSL, or https:// without", "endpoint")
	case !plain && u.Scheme == "http" && !loopback(u.Hostname()):
		s.wrong("https://, or disableSSL beside it for events to travel in the clear", "endpoint")
	}
	cfg.Endpoint, cfg.AllowPlaintext = endpoint, plain
}

// rudderCredentials chooses as RudderStack does:
// https://github.com/rudderlabs/rudder-go-kit/blob/main/awsutil/awsutil.go
func (s *settings) rudderCredentials(cfg *Config, externalID string, opts []RoleOption, keys map[string]string) {
	role := s.text("iamRoleARN")
	byRole, set := s.flag(s.find(exactly, "roleBasedAuth"))
	id, key := s.text("accessKeyID"), s.text("accessKey", "secretAccessKey")
	token := s.text("sessionToken")
	switch {
	case role != "" && (byRole || !set):
		s.unused("accessKeyID", "accessKey", "secretAccessKey", "sessionToken")
		if externalID == "" {
			externalID = s.text("externalID", "workspaceID")
			keys["Credentials.ExternalID"] = s.name("externalID", "workspaceID")
		}
		if externalID == "" {
			s.wrong("its external id in the call or as workspaceID: the id of the RudderStack workspace, which is sts:ExternalId in the role's trust policy", "iamRoleARN")
		}
		if name := s.text("roleSessionName"); name != "" {
			keys["Credentials.SessionName"] = s.name("roleSessionName")
			opts = slices.Concat([]RoleOption{WithSessionName(name)}, opts)
		}
		cfg.Credentials = AssumeRole(role, externalID, opts...)
	case id != "" && key != "":
		s.unused("iamRoleARN")
		cfg.Credentials = AccessKeys(id, key, token)
	default:
		s.unused("iamRoleARN", "accessKeyID", "accessKey", "secretAccessKey", "sessionToken")
		cfg.Credentials = Ambient()
	}
}

// settingsReader takes settings apart, and collects what is wrong with them
// and what was not used.
type settingsReader struct {
	root     *settings
	objects  []*settings // root, and those in it that were read
	errs     []error
	filledIn bool // by RudderStack's server: env.NAME and {{…}}
}

// settings is one JSON object of them.
type settings struct {
	reader *settingsReader
	path   string // before its keys, such as "config."
	pairs  []setting
}

type setting struct {
	key   string
	value json.RawMessage
	used  bool
}

func readSettings(text []byte) (*settingsReader, error) {
	var whole json.RawMessage
	var broken *json.SyntaxError
	if err := json.Unmarshal(text, &whole); errors.As(err, &broken) {
		// Not the error itself, which quotes a byte of what may be a secret.
		return nil, &SettingsError{Want: fmt.Sprintf("JSON; it is broken at byte %d", broken.Offset)}
	}
	if !bytes.HasPrefix(whole, []byte("{")) {
		return nil, &SettingsError{Want: "a JSON object"}
	}
	r := new(settingsReader)
	r.root = r.object("", whole)
	return r, nil
}

// object takes a JSON object apart. It keeps keys that are there twice.
func (r *settingsReader) object(path string, text json.RawMessage) *settings {
	s := &settings{reader: r, path: path}
	r.objects = append(r.objects, s)
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil { // the brace
		return s
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			break // cannot happen: it was parsed before
		}
		p := setting{key: fmt.Sprint(key)}
		if err := dec.Decode(&p.value); err != nil {
			break
		}
		s.pairs = append(s.pairs, p)
	}
	return s
}

// exactly compares keys where RudderStack does; strings.EqualFold is how its
// decoder, mapstructure, compares all others.
func exactly(a, b string) bool { return a == b }

// find returns the pairs of a key that has several names, without those that
// are null, and marks all as used.
func (s *settings) find(equal func(a, b string) bool, names ...string) (found []setting) {
	for i := range s.pairs {
		p := &s.pairs[i]
		if !slices.ContainsFunc(names, func(name string) bool { return equal(name, p.key) }) {
			continue
		}
		p.used = true
		if string(p.value) != "null" {
			found = append(found, *p)
		}
	}
	return found
}

// name is what a key is called in these settings, or how it should be.
func (s *settings) name(names ...string) string {
	for _, p := range s.pairs {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, p.key) }) {
			return s.path + p.key
		}
	}
	return s.path + names[0]
}

func (s *settings) wrong(want string, names ...string) {
	s.reader.wrong(s.name(names...), want)
}

func (r *settingsReader) wrong(key, want string) {
	r.errs = append(r.errs, &SettingsError{Key: key, Want: want})
}

// differ reports pairs whose values contradict each other.
func (s *settings) differ(a, b setting) {
	if a.key == b.key {
		s.reader.wrong(s.path+a.key, "it once: it is there twice, with different values")
		return
	}
	s.reader.wrong(s.path+a.key+" and "+s.path+b.key, "one of them, or the same in both")
}

// text returns a string, or "" for none.
func (s *settings) text(names ...string) (value string) {
	var from setting
	for _, p := range s.find(strings.EqualFold, names...) {
		var text string
		if json.Unmarshal(p.value, &text) != nil {
			s.reader.wrong(s.path+p.key, "a string, in quotes")
			continue
		}
		filledIn := strings.HasPrefix(text, "env.") || strings.HasPrefix(text, "{{")
		switch {
		case text == "":
		case s.reader.filledIn && filledIn:
			s.reader.wrong(s.path+p.key, "the value itself: env.NAME and {{…}} are filled in by RudderStack's server")
		case value == "":
			value, from = text, p
		case value != text:
			s.differ(from, p)
		}
	}
	return value
}

// flag returns a boolean, and whether it is there. "true" in quotes is refused,
// as RudderStack's decoder and the type in Segment's API do: such settings have
// not worked anywhere, and nobody knows what was meant by "no" or "0".
func (s *settings) flag(found []setting) (value, set bool) {
	var from setting
	for _, p := range found {
		var flag bool
		switch {
		case json.Unmarshal(p.value, &flag) != nil:
			s.reader.wrong(s.path+p.key, "true or false, without quotes")
		case !set:
			value, set, from = flag, true, p
		case value != flag:
			s.differ(from, p)
		}
	}
	return value, set
}

func (s *settings) on(name string) bool {
	value, _ := s.flag(s.find(strings.EqualFold, name))
	return value
}

func (s *settings) off(name string) bool {
	value, set := s.flag(s.find(strings.EqualFold, name))
	return set && !value
}

// object returns an inner object, or nil.
func (s *settings) object(name string) *settings {
	found := s.find(strings.EqualFold, name)
	switch {
	case len(found) == 0:
		return nil
	case len(found) > 1:
		s.differ(found[0], found[1])
		return nil
	case found[0].value[0] != '{':
		s.reader.wrong(s.path+found[0].key, "an object")
		return nil
	}
	return s.reader.object(s.path+found[0].key+".", found[0].value)
}

// skip marks keys as used that only describe the destination.
func (s *settings) skip(names ...string) { s.find(strings.EqualFold, names...) }

func (s *settings) skipAll() {
	for i := range s.pairs {
		s.pairs[i].used = true
	}
}

// unused takes back that keys were used.
func (s *settings) unused(names ...string) {
	for i := range s.pairs {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, s.pairs[i].key) }) {
			s.pairs[i].used = false
		}
	}
}

// check reports what New would refuse of cfg, by the names in the settings and
// without the values. A SourceID may come later.
func (r *settingsReader) check(cfg *Config, keys map[string]string) {
	c := cfg.withDefaults()
	c.SourceID = cmp.Or(c.SourceID, "any")
	var errs configErrors
	c.checkPlace(&errs)
	c.Credentials.check(&errs)
	for _, err := range errs {
		var e *ConfigError
		switch {
		case !errors.As(err, &e) || keys[e.Field] == "": // an argument's, not the settings'
			r.errs = append(r.errs, err)
		case !r.told(keys[e.Field]):
			r.wrong(keys[e.Field], e.Want)
		}
	}
}

// told reports whether an error names the key.
func (r *settingsReader) told(key string) bool {
	return slices.ContainsFunc(r.errs, func(err error) bool {
		var e *SettingsError
		return errors.As(err, &e) && e.Key == key
	})
}

// empty reports whether a value says nothing.
func (p *setting) empty() bool {
	var v bytes.Buffer
	if err := json.Compact(&v, p.value); err != nil {
		return false
	}
	return slices.Contains([]string{"null", `""`, "[]", "{}"}, v.String())
}

func (r *settingsReader) result(cfg Config) (Config, []string, error) {
	if len(r.errs) > 0 {
		return Config{}, nil, errors.Join(r.errs...)
	}
	var ignored []string
	for _, s := range r.objects {
		for _, p := range s.pairs {
			if !p.used && !p.empty() {
				ignored = append(ignored, s.path+p.key)
			}
		}
	}
	return cfg, ignored, nil
}
