<?php
// What page.py works out, in PHP's own way: it is its own template engine.
function steps($number)
{
    for ($count = 0; $number > 1; $count++) {
        $number = $number % 2 ? 3 * $number + 1 : intdiv($number, 2);
    }
    return $count;
}
ob_start();
?>
<!doctype html>
<table>
<?php for ($row = 0; $row < 400; $row++) { ?>
<tr><?php for ($number = $row * 5 + 1; $number <= $row * 5 + 5; $number++) { ?><td><?= htmlspecialchars($number . ' > ' . steps($number)) ?></td><?php } ?></tr>
<?php } ?>
</table>
<?php
header('Content-Length: ' . ob_get_length());
ob_end_flush();
