/* Certificates and keys for tests alone, valid from 2024 to 2124. They guard
** nothing: everybody has them. */
#ifndef MM_TEST_TLS_H
#define MM_TEST_TLS_H

static const char tls_ca[] = "-----BEGIN CERTIFICATE-----\n"
                             "MIIBVDCB+6ADAgECAgEBMAoGCCqGSM49BAMCMBkxFzAVBgNVBAMMDm1hcm1vdCB0\n"
                             "ZXN0IGNhMCAXDTI0MDEwMTAwMDAwMFoYDzIxMjQwMTAxMDAwMDAwWjAZMRcwFQYD\n"
                             "VQQDDA5tYXJtb3QgdGVzdCBjYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABPAh\n"
                             "GLFheMNnHdaipewtS7VxWJV8W4uz3N1xzG7V0RFWPCbNPVXsPDEc2VdgoVGWk+3M\n"
                             "vW+tHY8+D1kBgPSRqMyjMjAwMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFHUx\n"
                             "yAeY+yLMXFlpGsu1eF2pA9HOMAoGCCqGSM49BAMCA0gAMEUCIQCCvAAk2cApdqex\n"
                             "l7lshbGp8z/fH2odJSr1ESkZ4OgBhQIgP7tNNl83TxQuclsJnhLUFhKBKVLclPg9\n"
                             "m9iBCLuiZJM=\n"
                             "-----END CERTIFICATE-----\n";
static const char tls_other_ca[] = "-----BEGIN CERTIFICATE-----\n"
                                   "MIIBVzCB/aADAgECAgECMAoGCCqGSM49BAMCMBoxGDAWBgNVBAMMD21hcm1vdCB0\n"
                                   "ZXN0IGNhMjAgFw0yNDAxMDEwMDAwMDBaGA8yMTI0MDEwMTAwMDAwMFowGjEYMBYG\n"
                                   "A1UEAwwPbWFybW90IHRlc3QgY2EyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n"
                                   "TmoLbYKV5TI9Py0j979wlictCKTVjNUkGvGFPJ24MnVvume/f/WFdcYLuPKvZcGH\n"
                                   "uxJCLnQrkNUWO7W56ypwHqMyMDAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQU\n"
                                   "o+mctHNQS2C7OZZuHCLMOsdmbckwCgYIKoZIzj0EAwIDSQAwRgIhAKpVFRKzy6St\n"
                                   "xHNr5bAUi16dQlSHLM47jolLUgHNySw7AiEA++Rx2YzZte/NvOcCFtp3zUqZ5ekU\n"
                                   "Qr42JeZqeakLR2o=\n"
                                   "-----END CERTIFICATE-----\n";
static const char tls_server[] = "-----BEGIN CERTIFICATE-----\n"
                                 "MIIBezCCASKgAwIBAgIBAzAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5tYXJtb3Qg\n"
                                 "dGVzdCBjYTAgFw0yNDAxMDEwMDAwMDBaGA8yMTI0MDEwMTAwMDAwMFowFDESMBAG\n"
                                 "A1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsdKvIaKX\n"
                                 "EVo5f70HqOKopbz3VKHmCmFBWcKXtvY/8Xv5Fndqzx6NwycIyWqI9vFg9vyMV4WG\n"
                                 "VAYinzf7aJQAGaNeMFwwGgYDVR0RBBMwEYcEfwAAAYIJbG9jYWxob3N0MB0GA1Ud\n"
                                 "DgQWBBRmR0UWJIr8oMbZng8YJXFSasBjcDAfBgNVHSMEGDAWgBR1McgHmPsizFxZ\n"
                                 "aRrLtXhdqQPRzjAKBggqhkjOPQQDAgNHADBEAiAiPI2b5KrGwd6AKGa2GeMv1vHt\n"
                                 "YdZUJ7ANMRD6Dyd/VQIgHRMPKUTAvfs0ORFt+esKoJHpvL+SmpfIZ8sNetBrFHY=\n"
                                 "-----END CERTIFICATE-----\n";
static const char tls_server_key[] = "-----BEGIN EC PRIVATE KEY-----\n"
                                     "MHcCAQEEIPAmZoo5497/B9ij/FikQzntaPHdX25MxHm0hf3qBL5DoAoGCCqGSM49\n"
                                     "AwEHoUQDQgAEsdKvIaKXEVo5f70HqOKopbz3VKHmCmFBWcKXtvY/8Xv5Fndqzx6N\n"
                                     "wycIyWqI9vFg9vyMV4WGVAYinzf7aJQAGQ==\n"
                                     "-----END EC PRIVATE KEY-----\n";
static const char tls_misnamed[] = "-----BEGIN CERTIFICATE-----\n"
                                   "MIIBfDCCASSgAwIBAgIBBDAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5tYXJtb3Qg\n"
                                   "dGVzdCBjYTAgFw0yNDAxMDEwMDAwMDBaGA8yMTI0MDEwMTAwMDAwMFowGDEWMBQG\n"
                                   "A1UEAwwNb3RoZXIuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBGl\n"
                                   "vpp2u+SlvH9hdAEVGkfzGlpEM5jyZUkjMknxTc+7ysufcLoZ6HOZxY7qJUtT6WB6\n"
                                   "XtpHSD2PxnwofqPPjeOjXDBaMBgGA1UdEQQRMA+CDW90aGVyLmV4YW1wbGUwHQYD\n"
                                   "VR0OBBYEFJUk7RDboAdRDy9WM5RgJfsII2obMB8GA1UdIwQYMBaAFHUxyAeY+yLM\n"
                                   "XFlpGsu1eF2pA9HOMAoGCCqGSM49BAMCA0YAMEMCHzbuBJKNjqrL+X2iIb9CiiYz\n"
                                   "68uuLvNA32/6nohKTk0CIBTcPdlE2xii1ZEDEACS7N3dWGloiNb8W91Vhvd0scg8\n"
                                   "-----END CERTIFICATE-----\n";
static const char tls_misnamed_key[] = "-----BEGIN EC PRIVATE KEY-----\n"
                                       "MHcCAQEEIO4elwcNSIVwK+stdT01jVe2JqIJMjuOP912FuA/pdoyoAoGCCqGSM49\n"
                                       "AwEHoUQDQgAEEaW+mna75KW8f2F0ARUaR/MaWkQzmPJlSSMySfFNz7vKy59wuhno\n"
                                       "c5nFjuolS1PpYHpe2kdIPY/GfCh+o8+N4w==\n"
                                       "-----END EC PRIVATE KEY-----\n";
static const char tls_client[] = "-----BEGIN CERTIFICATE-----\n"
                                 "MIIBbzCCARWgAwIBAgIBBTAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5tYXJtb3Qg\n"
                                 "dGVzdCBjYTAgFw0yNDAxMDEwMDAwMDBaGA8yMTI0MDEwMTAwMDAwMFowDjEMMAoG\n"
                                 "A1UEAwwDYXBwMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZ5mrYJU+/QVh0aHg\n"
                                 "xymAlYO2omLp9nOxGx20U0xnPM83OkXg7DSg3kAiCXxAKLXxBqdMX+1gRmcxwMo1\n"
                                 "2kakMqNXMFUwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0OBBYEFGtd7K1Pm7bs\n"
                                 "+DEw2eXS5RjrWgt/MB8GA1UdIwQYMBaAFHUxyAeY+yLMXFlpGsu1eF2pA9HOMAoG\n"
                                 "CCqGSM49BAMCA0gAMEUCIGNbnfxu3h3qds3E5FwSLfcdKkeIO41zOPQt8CTbMwxj\n"
                                 "AiEA4eXo2AFVtSK4dkEITeWztFJ3PYAkMPYG3riPUcME+YE=\n"
                                 "-----END CERTIFICATE-----\n";
static const char tls_client_key[] = "-----BEGIN EC PRIVATE KEY-----\n"
                                     "MHcCAQEEIN466rsu5kV1TQgwgQMAdRXNOr1z70oS7ucxmAC1M6c3oAoGCCqGSM49\n"
                                     "AwEHoUQDQgAEZ5mrYJU+/QVh0aHgxymAlYO2omLp9nOxGx20U0xnPM83OkXg7DSg\n"
                                     "3kAiCXxAKLXxBqdMX+1gRmcxwMo12kakMg==\n"
                                     "-----END EC PRIVATE KEY-----\n";

#endif
