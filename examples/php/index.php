<?php
header('Content-Type: text/plain; charset=utf-8');

if (($_SERVER['PATH_INFO'] ?? '/') !== '/hello') {
    http_response_code(404);
    exit("there is only /hello\n");
}
echo 'hello, ', htmlspecialchars($_REQUEST['name'] ?? 'nobody'), "\n";
